#include "tests/roundtrip/round_trip_engine.h"

#include <condition_variable>
#include <mutex>
#include <shared_mutex>
#include <thread>

#include "base/assert.h"

namespace bulkhead::engine {

class RoundTripPartition;

// Controllers that stay while what they stand for changes.
class RoundTripController final : public InterruptController {
 public:
  explicit RoundTripController(RoundTripPartition& partition) : partition_{partition} {}
  void set_line(Gsi gsi, bool asserted) override;
  Result<std::unique_ptr<LineRegistration>> line_by_event(Gsi, Trigger) override {
    return fail("lines of a guest that moves are set one by one");
  }
  Result<InterruptControllerState> state() override;
  Result<void> set_state(const InterruptControllerState& state) override;

 private:
  RoundTripPartition& partition_;
};

// A vCPU that stays while what it stands for changes.
class RoundTripVcpu final : public Vcpu {
 public:
  RoundTripVcpu(RoundTripPartition& partition, unsigned index) : partition_{partition}, index_{index} {}
  Exit& run() override;
  void kick() override;
  VcpuState state() override { return real().state(); }
  Result<void> set_state(const VcpuState& state) override { return real().set_state(state); }
  bool read_virtual(Gva at, std::span<std::byte> out) override { return real().read_virtual(at, out); }
  bool write_virtual(Gva at, std::span<const std::byte> in) override { return real().write_virtual(at, in); }
  std::string describe() override { return real().describe(); }
  const telemetry::CounterSet& counters() const override;

 private:
  Vcpu& real() const;
  RoundTripPartition& partition_;
  const unsigned index_;
  Exit exit_ = KickedExit{};
  Exit* owner_ = nullptr;  // where the exit came from, until its answer is back there
  std::atomic<bool> kicked_{false};
};

class RoundTripPartition final : public Partition {
 public:
  RoundTripPartition(RoundTripEngine& engine, PartitionConfig config, GuestMemory& memory)
      : engine_{engine}, config_{std::move(config)}, memory_{memory} {
    for (unsigned i = 0; i < config_.vcpus; ++i) vcpus_.push_back(std::make_unique<RoundTripVcpu>(*this, i));
  }
  ~RoundTripPartition() override {
    {
      const std::lock_guard lock{mutex_};
      ending_ = true;
    }
    changed_.notify_all();
    if (mover_.joinable()) mover_.join();
  }
  Result<void> start() {
    BH_ASSIGN(real_, engine_.real_.create(config_, memory_));
    mover_ = std::thread{[this] { move_again_and_again(); }};
    return {};
  }

  Vcpu& vcpu(unsigned index) override { return *vcpus_[index]; }
  InterruptController* interrupt_controller() override {
    return real_->interrupt_controller() != nullptr ? &controller_ : nullptr;
  }
  void set_line(Gsi gsi, bool asserted) {
    const std::shared_lock lock{real_mutex_};
    real_->interrupt_controller()->set_line(gsi, asserted);
  }
  void set_extint(bool asserted) override {
    const std::shared_lock lock{real_mutex_};
    extint_ = asserted;
    real_->set_extint(asserted);
  }
  void set_extint_source(ExtIntSource* source) override {
    source_ = source;
    real_->set_extint_source(source);
  }
  void inject_nmi(unsigned vcpu) override {
    const std::shared_lock lock{real_mutex_};
    real_->inject_nmi(vcpu);
  }
  void inject_direct(unsigned vcpu, u8 vector) override {
    const std::shared_lock lock{real_mutex_};
    real_->inject_direct(vcpu, vector);
  }
  std::vector<u8> hypercall_code() const override { return real_->hypercall_code(); }
  u64 guest_tsc() const override {
    const std::shared_lock lock{real_mutex_};
    return real_->guest_tsc();
  }
  void set_eoi_handler(std::function<void(u8 vector)> handler) override {
    eoi_handler_ = handler;
    real_->set_eoi_handler(std::move(handler));
  }
  void send(Msi message) override {
    const std::shared_lock lock{real_mutex_};
    real_->send(message);
  }

  // By what every engine can: these stay while partitions come and go.
  Result<std::unique_ptr<Registration>> notify_on_write(const WritePlace& place, int eventfd) override {
    return registrations_.add_write(place, eventfd);
  }
  EmulatedRegistrations& registrations() { return registrations_; }

  Partition& real() const { return *real_; }
  // Between two runs of a vCPU, nothing owed: waits here while the guest moves.
  void between_runs() {
    if (!wanted_.load()) return;
    std::unique_lock lock{mutex_};
    ++parked_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return !wanted_.load(); });
    --parked_;
    changed_.notify_all();
  }
  bool wanted() const { return wanted_.load(); }

 private:
  void move_again_and_again() {
    std::unique_lock lock{mutex_};
    while (!changed_.wait_for(lock, engine_.period_, [this] { return ending_; })) {
      wanted_ = true;
      for (unsigned i = 0; i < config_.vcpus; ++i) real_->vcpu(i).kick();
      changed_.wait(lock, [this] { return ending_ || parked_ == config_.vcpus; });
      if (!ending_) move();
      wanted_ = false;
      changed_.notify_all();
      changed_.wait(lock, [this] { return ending_ || parked_ == 0; });
    }
    wanted_ = false;
    changed_.notify_all();
  }

  void move() {
    const std::unique_lock lock{real_mutex_};
    std::vector<VcpuState> states;
    for (unsigned i = 0; i < config_.vcpus; ++i) states.push_back(real_->vcpu(i).state());
    std::optional<InterruptControllerState> controllers;
    if (auto* const controller = real_->interrupt_controller()) {
      auto state = controller->state();
      BH_ASSERT(state.has_value());
      controllers = *state;
    }
    real_.reset();
    auto fresh = engine_.real_.create(config_, memory_);
    BH_ASSERT(fresh.has_value());
    real_ = std::move(*fresh);
    real_->set_extint_source(source_);
    real_->set_eoi_handler(eoi_handler_);
    for (unsigned i = 0; i < config_.vcpus; ++i) {
      const auto written = real_->vcpu(i).set_state(states[i]);
      if (!written) fmt::print(stderr, "round trip: {}\n", written.error().message);
      BH_ASSERT(written.has_value());
    }
    if (controllers) BH_ASSERT(real_->interrupt_controller()->set_state(*controllers).has_value());
    real_->set_extint(extint_);
    engine_.moves_.fetch_add(1);
  }

  RoundTripEngine& engine_;
  const PartitionConfig config_;
  GuestMemory& memory_;
  std::vector<std::unique_ptr<RoundTripVcpu>> vcpus_;
  RoundTripController controller_{*this};
  mutable std::shared_mutex real_mutex_;  // exclusively only while every vCPU is parked
  std::unique_ptr<Partition> real_;
  EmulatedRegistrations registrations_;
  std::atomic<bool> extint_{false};
  ExtIntSource* source_ = nullptr;
  std::function<void(u8)> eoi_handler_;
  std::mutex mutex_;
  std::condition_variable changed_;
  unsigned parked_ = 0;  // under mutex_
  bool ending_ = false;  // under mutex_
  std::atomic<bool> wanted_{false};
  std::thread mover_;
};

void RoundTripController::set_line(Gsi gsi, bool asserted) { partition_.set_line(gsi, asserted); }
Result<InterruptControllerState> RoundTripController::state() {
  return partition_.real().interrupt_controller()->state();
}
Result<void> RoundTripController::set_state(const InterruptControllerState& state) {
  return partition_.real().interrupt_controller()->set_state(state);
}

Vcpu& RoundTripVcpu::real() const { return partition_.real().vcpu(index_); }

const telemetry::CounterSet& RoundTripVcpu::counters() const {
  static const telemetry::CounterSet none{{}};  // the real one's go with it
  return none;
}

void RoundTripVcpu::kick() {
  kicked_ = true;
  real().kick();
}

Exit& RoundTripVcpu::run() {
  if (owner_ != nullptr) *owner_ = exit_;
  owner_ = nullptr;
  for (;;) {
    Exit& exit = real().run();
    if (partition_.registrations().takes(exit)) continue;
    if (!std::holds_alternative<KickedExit>(exit)) {
      owner_ = &exit;
      return exit_ = exit;
    }
    partition_.between_runs();
    if (kicked_.exchange(false)) return exit_ = KickedExit{};
  }
}

Result<std::unique_ptr<Partition>> RoundTripEngine::create(const PartitionConfig& config, GuestMemory& memory) {
  auto partition = std::make_unique<RoundTripPartition>(*this, config, memory);
  BH_TRY(partition->start());
  return partition;
}

}  // namespace bulkhead::engine
