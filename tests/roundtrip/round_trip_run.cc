// Boots a kernel on the machine microvm while its vCPUs move to fresh ones all the time. Prints the guest's console,
// then how often it moved. Status 0: the guest powered off; 77: this host cannot run the engine.
#include <cstdio>
#include <cstdlib>

#include "base/clock.h"
#include "device/console_backend.h"
#include "engine/dbt/dbt_engine.h"
#include "engine/kvm/kvm_engine.h"
#include "machine/microvm/microvm.h"
#include "tests/roundtrip/round_trip_engine.h"

namespace bulkhead {
namespace {

struct Stdout final : device::ConsoleBackend {
  std::size_t write(std::span<const std::byte> data) override {
    return std::fwrite(data.data(), 1, data.size(), stdout);
  }
  std::size_t read(std::span<std::byte>) override { return 0; }
  void set_callbacks(std::function<void()>, std::function<void()>) override {}
};

int run(std::span<char*> arguments) {
  if (arguments.size() < 5) {
    fmt::print(stderr, "round_trip_run ENGINE MICROSECONDS VCPUS KERNEL COMMAND-LINE [INITRD]\n");
    return 2;
  }
  const auto real =
      std::string_view{arguments[0]} == "kvm" ? engine::kvm::make_kvm_engine() : engine::dbt::make_dbt_engine();
  if (const auto probe = real->probe(); !probe.usable) {
    fmt::print("skipped: {}\n", probe.reason);
    return 77;
  }
  engine::RoundTripEngine engine{*real, std::chrono::microseconds{std::atoi(arguments[1])}};
  Stdout uart;
  machine::MicrovmConfig config;
  config.abi = machine::Abi::kNone;
  config.vcpus = static_cast<unsigned>(std::atoi(arguments[2]));
  config.memory_bytes = 512_MiB;
  config.kernel_path = arguments[3];
  config.command_line = arguments[4];
  if (arguments.size() > 5) config.initrd_path = arguments[5];
  config.uart = &uart;
  const auto machine = machine::Microvm::create(engine, config);
  if (!machine) {
    fmt::print(stderr, "{}\n", machine.error().message);
    return 125;
  }
  const machine::Outcome outcome = (*machine)->run();
  fmt::print("\nmoved {} times\n", engine.moves());
  if (outcome.kind == machine::Outcome::Kind::kPowerOff) return 0;
  fmt::print("the guest ended otherwise: kind {} {}\n", static_cast<int>(outcome.kind), outcome.reason);
  return 1;
}

}  // namespace
}  // namespace bulkhead

int main(int count, char** arguments) {
  return bulkhead::run(std::span{arguments + 1, static_cast<std::size_t>(count - 1)});
}
