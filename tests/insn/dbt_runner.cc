#include "tests/insn/dbt_runner.h"

#include "base/assert.h"
#include "engine/dbt/cpu/lapic.h"
#include "engine/dbt/cpu/shared.h"
#include "engine/dbt/cpu/vcpu_arena.h"
#include "engine/dbt/emit/translator.h"
#include "engine/dbt/interp/interp.h"
#include "tests/insn/guest_pages.h"
#include "tests/insn/xsave_image.h"

namespace bulkhead::insn {
namespace {
using namespace engine::dbt;

constexpr u64 kCodeGpa = 0x100000, kDataGpa = 0x200000, kSystemGpa = 0x300000, kTablesGpa = 0x400000;
// Supervisor pages, mapped where they lie.
constexpr u64 kGdt = kSystemGpa, kIdt = kSystemGpa + 0x1000, kTss = kSystemGpa + 0x2000,
              kHandlers = kSystemGpa + 0x3000, kStackTop = kSystemGpa + 0x8000;
constexpr u64 kHandlerSize = 16;
constexpr u8 kHlt = 0xf4;

engine::PartitionConfig host_config() {
  engine::PartitionConfig config;
  auto model = engine::make_cpu_model("host", 1);
  BH_ASSERT(model.has_value());
  config.cpu_model = std::move(*model);
  return config;
}
GuestMemory make_memory() {
  auto memory = GuestMemory::create_pc(16_MiB);
  BH_ASSERT(memory.has_value());
  return std::move(*memory);
}
VcpuArena make_arena() {
  auto arena = VcpuArena::create();
  BH_ASSERT(arena.has_value());
  return std::move(*arena);
}

class DbtRunner final : public CaseRunner {
 public:
  DbtRunner(std::string name, bool exact_flags, const MakeRun& make)
      : name_{std::move(name)},
        exact_flags_{exact_flags},
        memory_{make_memory()},
        shared_{host_config(), memory_},
        arena_{make_arena()} {
    shared_.cpus.push_back(std::make_unique<Cpu>(shared_, 0, &arena_.state()));
    cpu_ = shared_.cpus[0].get();
    cpu_->lapic = std::make_unique<Lapic>(shared_, 0, cpu_->s);
    cpu_->reset(false);
    build_tables();
    enter_long_mode();
    run_ = make(*cpu_);
  }

  std::string_view name() const override { return name_; }
  bool exact_flags_at_exceptions() const override { return exact_flags_; }

  void load(std::span<const Case> batch) override {
    u8* code = at(kCodeGpa);
    for (const Case& test : batch) {
      std::memcpy(code + (test.start - kCodeBase), test.code.data(), test.length);
      std::memset(code + (test.end() - kCodeBase), kHlt, kTerminatorSize);
    }
    for (u64 page = 0; page < kCodeSize; page += kPageSize) shared_.code_written(*cpu_, kCodeGpa + page, kPageSize);
  }

  void run(const Case& test, Outcome& outcome) override {
    prepare(test);
    const StepResult result = run_(*cpu_);
    cpu_->spill_fpu();
    collect(test, result, outcome);
  }

  std::span<const u8> memory() const override { return {at(kDataGpa), kWritableSize}; }

 private:
  u8* at(u64 gpa) const { return reinterpret_cast<u8*>(memory_.host(Gpa{gpa}, 1)); }

  void build_tables() {
    GuestPages pages{memory_, kTablesGpa};
    pages.map(kCodeBase, kCodeGpa, kCodeSize, GuestPages::kUser);
    pages.map(kDataBase, kDataGpa, kWritableSize, GuestPages::kUser | GuestPages::kWritable | GuestPages::kNoExecute);
    pages.map(kDataBase + kWritableSize, kDataGpa + kWritableSize, kReadOnlySize,
              GuestPages::kUser | GuestPages::kNoExecute);
    pages.map(kSystemGpa, kSystemGpa, 0x8000, GuestPages::kWritable);
    const u64 kernel_code = 0x00209b0000000000;
    std::memcpy(at(kGdt) + 8, &kernel_code, 8);
    std::memcpy(at(kTss) + 4, &kStackTop, 8);
    const u16 no_port_bitmap = 0x68;
    std::memcpy(at(kTss) + 102, &no_port_bitmap, 2);
    for (u64 vector = 0; vector < 256; ++vector) {
      const u64 handler = kHandlers + vector * kHandlerSize;
      const u64 gate[2] = {(handler & 0xffff) | u64{8} << 16 | u64{0xee} << 40 | (handler & 0xffff0000) << 32,
                           handler >> 32};
      std::memcpy(at(kIdt) + vector * 16, gate, 16);
      std::memset(at(handler), kHlt, kHandlerSize);
    }
    std::memcpy(at(kDataGpa), initial_data().data(), kDataSize);
  }

  void enter_long_mode() {
    CpuState& s = cpu_->s;
    s.cr0 = 0x80050033;  // PG AM WP NE ET MP PE
    s.cr3 = kTablesGpa;
    s.cr4 = 1u << 5 | 1u << 7 | 1u << 9 | 1u << 10 | 1u << 16 | 1u << 18;  // PAE PGE OSFXSR OSXMMEXCPT FSGSBASE OSXSAVE
    s.efer = 0xd01;                                                        // NXE LMA LME SCE
    s.xcr0 = image_components();
    s.gdtr = {kGdt, 15};
    s.idtr = {kIdt, 4095};
    s.tr = {0x40, 0x8b, 0x67, kTss};
    user_segments();
    cpu_->mode_changed();
    cpu_->flush_tlb(true);
  }

  // What a 64-bit Linux process has, so that reading selectors gives the same.
  void user_segments() {
    CpuState& s = cpu_->s;
    s.seg[kCs] = {0x33, 0xafb, 0xffffffff, 0};
    s.seg[kSs] = {0x2b, 0xcf3, 0xffffffff, 0};
    for (const Seg seg : {kDs, kEs, kFs}) s.seg[seg] = {0, 0x1000, 0, 0};
    s.seg[kGs] = {0, 0x1000, 0, kGsBase};
    cpu_->update_cpl(3);
  }

  void prepare(const Case& test) {
    u8* data = at(kDataGpa);
    std::memcpy(data, initial_data().data(), kWritableSize);
    for (unsigned i = 0; i < test.patch_count; ++i)
      std::memcpy(data + (test.patches[i].address - kDataBase), test.patches[i].bytes.data(), test.patches[i].size);
    CpuState& s = cpu_->s;
    s.halted = false;
    s.interrupt_shadow = false;
    s.cr2 = 0;
    user_segments();
    s.gpr = test.before.gpr;
    s.rip = test.start;
    s.rflags = test.before.flags | kIf | 2;
    cpu_->mode_changed();
    to_image(test.before, s.xsave.data());
    s.fpu_live = false;
  }

  u64 stacked(unsigned slot) const {  // counted from the top: SS, RSP, RFLAGS, CS, RIP, error code
    u64 value;
    std::memcpy(&value, at(kStackTop - 8 * (slot + 1)), 8);
    return value;
  }

  void collect(const Case& test, StepResult result, Outcome& outcome) {
    const CpuState& s = cpu_->s;
    Registers& registers = outcome.registers;
    registers.gpr = s.gpr;
    from_image(s.xsave.data(), registers);
    outcome.error = 0;
    outcome.address = 0;
    const u64 vector = (s.rip - kHandlers) / kHandlerSize;
    if (result != StepResult::kHalt || vector > 255) {
      outcome.vector = kStuck;
      registers.rip = s.rip;
      registers.flags = s.rflags;
      return;
    }
    registers.gpr[kRsp] = stacked(1);
    registers.flags = stacked(2);
    registers.rip = stacked(4);
    const bool has_error = vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21;
    outcome.vector = static_cast<int>(vector);
    if (has_error) outcome.error = static_cast<u32>(stacked(5));
    if (vector == kPageFault) outcome.address = s.cr2;
    if (vector == kGp && registers.rip == test.end()) outcome.vector = kNoFault;
  }

  std::string name_;
  bool exact_flags_;
  GuestMemory memory_;
  SharedState shared_;
  VcpuArena arena_;
  Cpu* cpu_ = nullptr;
  RunUntilHalt run_;
};

bool is_final(StepResult result) {
  return result == StepResult::kHalt || result == StepResult::kExit || result == StepResult::kShutdown;
}

}  // namespace

std::unique_ptr<CaseRunner> make_dbt_runner(std::string name, bool exact_flags_at_exceptions, const MakeRun& make) {
  return std::make_unique<DbtRunner>(std::move(name), exact_flags_at_exceptions, make);
}

std::unique_ptr<CaseRunner> make_interpreter_runner() {
  return make_dbt_runner("interpreter", true, [](Cpu&) -> RunUntilHalt {
    return [](Cpu& cpu) {
      StepResult result = StepResult::kNext;
      // A REP string instruction may take a step for every iteration, and runs into the end of the sandbox at last.
      for (unsigned i = 0; i < 100000 && !is_final(result); ++i) result = step(cpu);
      return result;
    };
  });
}

std::unique_ptr<CaseRunner> make_translator_runner() {
  // It saves flags around memory operands only where they are live.
  return make_dbt_runner("translator", false, [](Cpu& the_cpu) -> RunUntilHalt {
    auto translator = make_translator(the_cpu, 64_MiB);
    BH_ASSERT(translator.has_value());
    return [runner = std::shared_ptr<BlockRunner>{std::move(*translator)}](Cpu& cpu) {
      StepResult result = StepResult::kNext;
      for (unsigned i = 0; i < 1000 && !is_final(result); ++i) result = runner->run(cpu);
      return result;
    };
  });
}

}  // namespace bulkhead::insn
