// An engine whose guest is a script: a list of steps for each vCPU, each of which yields an exit. What the machine
// answered is seen by the next step. Behind its last step a vCPU waits until it is kicked.
#pragma once
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"

namespace bulkhead::testing {

class FakeVcpu final : public engine::Vcpu {
 public:
  // Runs on the vCPU's thread; `last` is the exit before, with the machine's answer in it.
  using Step = std::function<engine::Exit(const engine::Exit& last)>;

  // ---- the test's side, before the machine runs
  void then(const engine::Exit& exit) {
    then([exit](const engine::Exit&) { return exit; });
  }
  void then(Step step) { steps_.push_back(std::move(step)); }
  void out(u16 port, u64 value, u8 size = 1) { then(engine::PortExit{port, size, true, value}); }
  // A port read whose answer goes to `seen`.
  void in(u16 port, u8 size, u64& seen) {
    then(engine::PortExit{port, size, false, 0});
    then_look([&seen](const engine::Exit& last) { seen = std::get<engine::PortExit>(last).value; });
  }
  void store(u64 address, u64 value, u8 size = 4) { then(engine::MmioExit{Gpa{address}, size, true, value}); }
  void load(u64 address, u8 size, u64& seen) {
    then(engine::MmioExit{Gpa{address}, size, false, 0});
    then_look([&seen](const engine::Exit& last) { seen = std::get<engine::MmioExit>(last).value; });
  }
  // Looks at the answer without an exit of its own: the next step follows at once.
  void then_look(std::function<void(const engine::Exit&)> look) {
    then([look](const engine::Exit& last) -> engine::Exit {
      look(last);
      return engine::KickedExit{};
    });
  }
  // From here on this exit, again and again.
  void forever(const engine::Exit& exit) { forever_.emplace(exit); }
  engine::VcpuState state_now;
  u64 runs = 0;

  // ---- the engine's side
  engine::Exit& run() override {
    ++runs;
    if (take_kick()) return exit_ = engine::KickedExit{};
    if (!steps_.empty()) {
      const Step step = std::move(steps_.front());
      steps_.pop_front();
      return exit_ = step(exit_);
    }
    if (forever_) return exit_ = *forever_;
    std::unique_lock lock{mutex_};
    wake_.wait(lock, [&] { return kicked_; });
    kicked_ = false;
    return exit_ = engine::KickedExit{};
  }
  void kick() override {
    {
      const std::lock_guard lock{mutex_};
      kicked_ = true;
    }
    wake_.notify_all();
  }
  engine::VcpuState state() override { return state_now; }
  Result<void> set_state(const engine::VcpuState& state) override {
    state_now = state;
    return {};
  }
  // Linear addresses are guest-physical ones.
  const GuestMemory* memory = nullptr;
  bool read_virtual(Gva at, std::span<std::byte> out) override { return memory && memory->read({at.value}, out); }
  bool write_virtual(Gva at, std::span<const std::byte> in) override { return memory && memory->write({at.value}, in); }
  std::string describe() override { return "fake registers"; }
  const telemetry::CounterSet& counters() const override { return counters_; }

 private:
  // A kick is not allowed to swallow the answer that the next step wants to see, so steps go first.
  bool take_kick() {
    const std::lock_guard lock{mutex_};
    return steps_.empty() && std::exchange(kicked_, false);
  }

  std::deque<Step> steps_;
  std::optional<engine::Exit> forever_;
  engine::Exit exit_ = engine::KickedExit{};
  telemetry::CounterSet counters_{{"steps"}};
  std::mutex mutex_;
  std::condition_variable wake_;
  bool kicked_ = false;
};

class FakePartition final : public engine::Partition {
 public:
  u64 guest_tsc() const override { return 0; }
  explicit FakePartition(unsigned vcpus) : vcpus_(vcpus) {
    for (unsigned i = 1; i < vcpus; ++i) vcpus_[i].state_now.mp_state = engine::MpState::kWaitForSipi;
  }
  FakeVcpu& fake(unsigned index) { return vcpus_[index]; }
  std::vector<Msi> sent() const {
    const std::lock_guard lock{mutex_};
    return sent_;
  }
  void end_of_interrupt(u8 vector) { eoi_(vector); }
  bool extint() const {
    const std::lock_guard lock{mutex_};
    return extint_;
  }
  engine::ExtIntSource* extint_source() const { return source_; }

  engine::Vcpu& vcpu(unsigned index) override { return vcpus_[index]; }
  void set_extint(bool asserted) override {
    const std::lock_guard lock{mutex_};
    extint_ = asserted;
  }
  void set_extint_source(engine::ExtIntSource* source) override { source_ = source; }
  void inject_nmi(unsigned) override {}
  void inject_direct(unsigned vcpu, u8 vector) override {
    const std::lock_guard lock{mutex_};
    direct_.emplace_back(vcpu, vector);
  }
  std::vector<std::pair<unsigned, u8>> direct() const {
    const std::lock_guard lock{mutex_};
    return direct_;
  }
  void set_eoi_handler(std::function<void(u8)> handler) override { eoi_ = std::move(handler); }
  Result<std::unique_ptr<engine::Registration>> notify_on_write(const engine::WritePlace& place, int eventfd) override {
    return registrations_.add_write(place, eventfd);
  }
  void send(Msi message) override {
    const std::lock_guard lock{mutex_};
    sent_.push_back(message);
  }

 private:
  engine::EmulatedRegistrations registrations_;
  std::deque<FakeVcpu> vcpus_;
  mutable std::mutex mutex_;
  std::vector<Msi> sent_;
  std::vector<std::pair<unsigned, u8>> direct_;
  bool extint_ = false;
  engine::ExtIntSource* source_ = nullptr;
  std::function<void(u8)> eoi_;
};

class FakeEngine final : public engine::Engine {
 public:
  // Called with each new partition, to write its script.
  using Setup = std::function<void(FakePartition&, GuestMemory&)>;
  explicit FakeEngine(Setup setup) : setup_{std::move(setup)} {}

  engine::Probe probe() const override { return {engine::EngineKind::kDbt, true, {}, {kMaxVcpus, true, false}}; }
  Result<std::unique_ptr<engine::Partition>> create(const engine::PartitionConfig& config,
                                                    GuestMemory& memory) override {
    last_config = config;
    auto partition = std::make_unique<FakePartition>(config.vcpus);
    setup_(*partition, memory);
    return partition;
  }
  static constexpr unsigned kMaxVcpus = 8;
  engine::PartitionConfig last_config;

 private:
  Setup setup_;
};

}  // namespace bulkhead::testing
