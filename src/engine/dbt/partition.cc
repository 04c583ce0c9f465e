#include "engine/dbt/partition.h"

#include <sys/prctl.h>

#include "base/thread.h"
#include "engine/dbt/emit/translator.h"
#include "engine/dbt/interpreter_runner.h"

namespace bulkhead::engine::dbt {
namespace {

std::thread start_timer_thread(LapicBus& bus) {
  return start_thread("bh-lapic-timer", [&bus] {
    ::prctl(PR_SET_TIMERSLACK, 1);
    do bus.run_timers();
    while (bus.wait_for_timers());
  });
}

}  // namespace

Result<std::unique_ptr<Partition>> DbtPartition::create(const PartitionConfig& config, GuestMemory& memory,
                                                        DbtOptions options) {
  memory.want_large_pages();
  const u64 all = options.cache_bytes.value_or(config.vcpus == 1 ? 40_MiB : config.vcpus * 24_MiB);
  const u64 cache_bytes = all / config.vcpus;
  std::unique_ptr<DbtPartition> partition{new DbtPartition{config, memory, std::move(options)}};
  for (unsigned i = 0; i < config.vcpus; ++i) BH_TRY(partition->add_vcpu(i, cache_bytes));
  partition->synchronize_clocks();
  partition->timer_thread_ = start_timer_thread(partition->shared_);
  return partition;
}

Result<void> DbtPartition::add_vcpu(unsigned index, u64 cache_bytes) {
  BH_ASSIGN(VcpuArena arena, VcpuArena::create());
  arenas_.push_back(std::move(arena));
  shared_.cpus.push_back(std::make_unique<Cpu>(shared_, index, &arenas_.back().state()));
  Cpu& cpu = *shared_.cpus.back();
  if (cpu.lapic == nullptr) cpu.lapic = std::make_unique<Lapic>(shared_, index, cpu.s);
  cpu.reset(false);
  std::unique_ptr<BlockRunner> runner;
  if (options_.mode == DbtVcpu::Mode::kInterpreter) {
    runner = std::make_unique<InterpreterRunner>();
  } else {
    BH_ASSIGN(runner, make_translator(cpu, cache_bytes, options_.perf_map.get()));
  }
  vcpus_.push_back(std::make_unique<DbtVcpu>(cpu, std::move(runner), options_.mode, registrations_));
  return {};
}

// The TSCs of all vCPUs start at 0 at the same moment, as after a reset of the whole machine.
void DbtPartition::synchronize_clocks() {
  for (const auto& cpu : shared_.cpus) cpu->s.tsc_offset = shared_.cpus[0]->s.tsc_offset;
}

DbtPartition::~DbtPartition() {
  shared_.stop_timers();
  if (timer_thread_.joinable()) timer_thread_.join();
}

Vcpu& DbtPartition::vcpu(unsigned index) {
  BH_ASSERT(index < vcpus_.size());
  return *vcpus_[index];
}

Result<void> DbtPartition::set_deprivileged(DeprivilegedGuest& guest) {
  for (const auto& vcpu : vcpus_) vcpu->set_deprivileged(guest, vcpus_);
  return {};
}

// Each forgets before its next guest instruction; who is in the guest is on the way out.
void DbtPartition::stop_writes(u64 gpa_page, u64 innocent) {
  shared_.drop_writes_everywhere(gpa_page, innocent);
  for (unsigned i = 0; i < vcpus_.size(); ++i)
    if (!bit(innocent, i)) vcpus_[i]->wait_for_requests();
}

void DbtPartition::signal_attention(unsigned vcpu) {
  BH_ASSERT(vcpu < vcpus_.size());
  vcpus_[vcpu]->signal_attention();
}

void DbtPartition::inject_direct(unsigned vcpu, u8 vector) {
  BH_ASSERT(vcpu < vcpus_.size());
  shared_.cpus[vcpu]->lapic->inject_direct(vector);
}

void DbtPartition::inject_nmi(unsigned vcpu) {
  BH_ASSERT(vcpu < vcpus_.size());
  shared_.cpus[vcpu]->lapic->inject_nmi();
}

}  // namespace bulkhead::engine::dbt
