// A null hypercall, xen_version(XENVER_version), as a PVH guest sees it: out of the engine, answered, and back.
#include <benchmark/benchmark.h>
#include <xen/xen.h>

#include "base/timer_service.h"
#include "engine/dbt/dbt_engine.h"
#include "machine/microvm/vcpu_gang.h"
#include "machine/microvm/xen_abi.h"

namespace bulkhead::machine {
namespace {

// 64-bit code at 0x1000 under identity paging of the first 2 MiB: RBX hypercalls, then HLT with interrupts off.
constexpr std::array<u8, 19> kLoop = {0xb8, 0x11, 0x00, 0x00, 0x00,  // again: mov eax, 17
                                      0x31, 0xff,                    // xor edi, edi
                                      0x0f, 0x01, 0xc1,              // vmcall
                                      0x48, 0xff, 0xcb,              // dec rbx
                                      0x75, 0xf1,                    // jnz again
                                      0xfa, 0xf4, 0x90, 0x90};

void NullHypercall(benchmark::State& bench) {
  constexpr u64 kCalls = 1'000'000;
  for (auto _ : bench) {
    GuestMemory memory = *GuestMemory::create({{Gpa{0}, 2_MiB}}, XenAbi::kPages);
    HostTimerService timers;
    const auto engine = engine::dbt::make_dbt_engine();
    const auto model = *engine::make_cpu_model("host", 1);
    const auto partition = *engine->create({.vcpus = 1, .cpu_model = model, .options = {}}, memory);
    Bus ports, mmio;
    VcpuGang gang{*partition, 1, ports, mmio};
    XenAbi xen{model,
               1,
               *partition,
               memory,
               timers,
               {.wake = [&](unsigned i) { gang.wake(i); }, .finish = [&](Outcome o) { gang.finish(o); }, .pulse_gsi = {}}};
    gang.set_abi(&xen);
    (void)memory.write(Gpa{0x1000}, std::as_bytes(std::span{kLoop}));
    (void)memory.store(Gpa{0x10000}, u64{0x11003});
    (void)memory.store(Gpa{0x11000}, u64{0x12003});
    (void)memory.store(Gpa{0x12000}, u64{0x83});
    engine::VcpuState state = partition->vcpu(0).state();
    state.rip = 0x1000;
    state.cr0 = 0x80000031, state.cr3 = 0x10000, state.cr4 = 0x620, state.efer = 0xd00;
    state.segments[1] = {8, 0, 0xffffffff, 0x9b | 1u << 9 | 1u << 11};
    for (const unsigned i : {0u, 2u, 3u, 4u, 5u}) state.segments[i] = {16, 0, 0xffffffff, 0x93 | 3u << 10};
    state.gpr[3] = kCalls;
    (void)partition->vcpu(0).set_state(state);
    const HostClock clock;
    const Nanoseconds begin = clock.now();
    gang.run();
    bench.counters["ns/call"] = static_cast<double>(clock.now() - begin) / static_cast<double>(kCalls);
  }
}
BENCHMARK(NullHypercall)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace bulkhead::machine
