#include "container/shim/program.h"

#include <unistd.h>

#include "base/log.h"
#include "container/shim/actions.h"

namespace bulkhead::container {
namespace {

Result<void> act(const ShimFlags& flags) {
  if (!flags.bundle.empty() && ::chdir(flags.bundle.c_str()) != 0 && flags.action != "delete")
    return fail_errno("changing into the bundle {}", flags.bundle);
  if (flags.action == "start") return start_action(flags);
  if (flags.action == "delete") return delete_action(flags);
  if (flags.action == "serve") return serve_action(flags);
  return fail("containerd-shim-bulkhead-v2 is started by containerd, with start or delete: not \"{}\"", flags.action);
}

}  // namespace

int shim_main(int argc, char** argv) {
  const auto flags = parse_flags({argv + (argc > 0 ? 1 : 0), argv + argc});
  if (flags && flags->version) {
    constexpr std::string_view kText = "containerd-shim-bulkhead-v2 0.1.0\n";
    return ::write(STDOUT_FILENO, kText.data(), kText.size()) < 0 ? 1 : 0;
  }
  const Result<void> done = flags ? act(*flags) : std::unexpected(flags.error());
  if (done) return 0;
  log_line(LogLevel::kError, done.error().message);
  return 1;
}

}  // namespace bulkhead::container
