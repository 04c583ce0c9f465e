// A zone's agent that has been taken over: whatever it answers, the shim ends, keeps what it holds bounded, and passes
// on no more than it was given.
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "container/shim/pod.h"
#include "container/shim/statistics.h"
#include "container/shim/streams.h"
#include "github.com/containerd/cgroups/v2/stats/metrics.pb.h"

namespace {

using namespace bulkhead;
using namespace bulkhead::container;

void statistics(const ttrpc::Answer& answer) {
  pod::StatsResponse numbers;
  if (!answer.good() || !numbers.ParseFromString(answer.payload)) return;
  io::containerd::cgroups::v2::Metrics metrics;
  if (!metrics.ParseFromString(metrics_of(numbers))) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ::signal(SIGPIPE, SIG_IGN);  // as the shim does
  int fds[2];
  if (size > 64 * 1024 || ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) != 0) return 0;
  UniqueFd ours{fds[0]}, theirs{fds[1]};
  Loop loop;
  Pod pod{loop, STDERR_FILENO, [](const std::string&) {}};
  unsigned asked = 0;
  // As long as there is an agent, so that all that it says is heard.
  std::function<void(const char*, void (*)(const ttrpc::Answer&))> ask;
  ask = [&](const char* method, void (*look)(const ttrpc::Answer&)) {
    if (++asked > 64) return loop.stop();
    pod.call(method, pod::Empty{}, [&, method, look](const ttrpc::Answer& answer) {
      if (answer.text.size() > 2048) __builtin_trap();
      if (look != nullptr) look(answer);
      if (answer.code == ttrpc::Code::kUnavailable) return loop.stop();
      ask(method, look);
    });
  };
  const auto begin = [&](const Result<void>& ready) {  // stream 1; what follows has 3, 5, ...
    if (ready) ask("Statistics", statistics);
  };
  pod.greet(std::move(ours), begin);
  ask("Wait", nullptr);
  pod::ProcessName name;
  name.set_container("c");
  const auto streams = Streams::open(loop, pod, name, {"", "file:///dev/null", "file:///dev/null", false});
  if (streams) (*streams)->begin();
  if (::send(theirs.get(), data, size, MSG_NOSIGNAL) < 0 && size > 0) return 0;
  theirs.reset();
  loop.run();  // the connection's end answers what is left
  return 0;
}
