#include "net/tap/in_namespace.h"

#include <fcntl.h>
#include <sched.h>

#include <thread>

#include "base/fd.h"

namespace bulkhead::net {

Result<void> in_namespace(const std::string& netns, const std::function<Result<void>()>& work) {
  if (netns.empty()) return work();
  const std::string path = netns.contains('/') ? netns : "/run/netns/" + netns;
  const UniqueFd space{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (!space) return fail_errno("opening the network namespace {}", path);
  Result<void> result;
  std::thread{[&] {
    if (::setns(space.get(), CLONE_NEWNET) != 0)
      result = fail_errno("entering the network namespace {} (this needs CAP_SYS_ADMIN)", path);
    else
      result = work();
  }}.join();
  return result;
}

}  // namespace bulkhead::net
