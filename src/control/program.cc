#include "control/program.h"

#include <fcntl.h>
#include <unistd.h>

#include <exception>

#include "base/log.h"
#include "control/commands.h"
#include "fs/process/file_server.h"

namespace bulkhead::control {
namespace {

template <class... Visitors>
struct Overloaded : Visitors... {
  using Visitors::operator()...;
};

int dispatch(const Command& command, Surroundings& around) {
  return std::visit(Overloaded{[&](const RunCommand& one) { return run_command(one, around); },
                               [&](const BootCommand& one) { return boot_command(one, around); },
                               [&](const HostCommand& one) { return host_command(one); },
                               [&](const KernelFetchCommand& one) { return kernel_fetch_command(one, around); },
                               [&](const KernelListCommand& one) { return kernel_list_command(one); },
                               [&](const ZoneListCommand& one) { return zone_list_command(one); },
                               [&](const ZoneAskCommand& one) { return zone_ask_command(one, around); },
                               [&](const DiskCommand& one) { return disk_command(one, around); },
                               [&](const NetCommand& one) { return net_command(one, around); },
                               [&](const ImageVerbCommand& one) { return image_command(one, around); },
                               [&](const NodeCommand& one) { return node_command(one, around); },
                               [&](const HelpCommand& one) {
                                 print(one.text);
                                 return 0;
                               }},
                    command);
}

int parse_and_dispatch(int argc, char** argv, Surroundings& around) {
  const auto command = parse_command_line({argv + (argc > 0 ? 1 : 0), argv + argc});
  if (!command) return say_failure(command.error(), around);
  return dispatch(*command, around);
}

// Started without one of them, we must not open something else under its number.
void ensure_standard_descriptors() {
  int fd;
  do {
    fd = ::open("/dev/null", O_RDWR);
  } while (fd >= 0 && fd <= STDERR_FILENO);
  if (fd > STDERR_FILENO) ::close(fd);
}

}  // namespace

void print(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(STDOUT_FILENO, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

int say_failure(const Error& error, Surroundings& around) {
  const int number = around.workshop.signals != nullptr ? around.workshop.signals->first() : 0;
  log_line(LogLevel::kError, error.message);
  return number != 0 ? 128 + number : kBulkheadFailed;
}

int main_program(int argc, char** argv) {
  if (fs::asked_to_serve(argc, argv)) return fs::serve(argc, argv);
  const Nanoseconds start = HostClock{}.now();
  ensure_standard_descriptors();
  auto signals = zone::EndSignals::take();
  zone::Progress progress;
  zone::Workshop workshop{progress, signals ? &*signals : nullptr};
  Surroundings around{workshop, start};
  if (!signals) return say_failure(signals.error(), around);
  try {
    return parse_and_dispatch(argc, argv, around);
  } catch (const std::exception& error) {  // from libraries, out of memory, ...
    return say_failure({error.what()}, around);
  }
}

}  // namespace bulkhead::control
