// A guest of the built-in engine: what its vCPUs share, the vCPUs, and the thread that runs their LAPIC timers.
#pragma once
#include <optional>
#include <thread>

#include "engine/dbt/cache/perf_map.h"
#include "engine/dbt/cpu/vcpu_arena.h"
#include "engine/dbt/vcpu.h"

namespace bulkhead::engine::dbt {

struct DbtOptions {
  DbtVcpu::Mode mode = DbtVcpu::Mode::kTranslator;
  std::optional<u64> cache_bytes;     // of the whole partition; otherwise enough for a kernel's boot on every vCPU
  std::unique_ptr<PerfMap> perf_map;  // or nullptr
};

class DbtPartition final : public Partition {
 public:
  // Errors: the host has no memory left for the vCPUs.
  static Result<std::unique_ptr<Partition>> create(const PartitionConfig& config, GuestMemory& memory,
                                                   DbtOptions options);
  ~DbtPartition() override;

  Vcpu& vcpu(unsigned index) override;
  void set_extint(bool asserted) override { shared_.set_extint(asserted); }
  void set_extint_source(ExtIntSource* source) override { shared_.extint_source = source; }
  void inject_nmi(unsigned vcpu) override;
  void inject_direct(unsigned vcpu, u8 vector) override;
  Result<void> set_deprivileged(DeprivilegedGuest& guest) override;
  void signal_attention(unsigned vcpu) override;
  void stop_writes(u64 gpa_page, u64 innocent) override;
  u64 guest_tsc() const override { return shared_.cpus[0]->read_tsc(); }
  void set_eoi_handler(std::function<void(u8 vector)> handler) override { shared_.eoi_handler = std::move(handler); }
  void send(Msi message) override { shared_.deliver_msi(message); }
  Result<std::unique_ptr<Registration>> notify_on_write(const WritePlace& place, int eventfd) override {
    return registrations_.add_write(place, eventfd);
  }

 private:
  DbtPartition(const PartitionConfig& config, GuestMemory& memory, DbtOptions options)
      : options_{std::move(options)}, shared_{config, memory} {}
  Result<void> add_vcpu(unsigned index, u64 cache_bytes);
  void synchronize_clocks();

  const DbtOptions options_;
  std::vector<VcpuArena> arenas_;  // hold the vCPUs' states: outlive everything below
  SharedState shared_;
  EmulatedRegistrations registrations_;
  std::vector<std::unique_ptr<DbtVcpu>> vcpus_;
  std::thread timer_thread_;
};

}  // namespace bulkhead::engine::dbt
