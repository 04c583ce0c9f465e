// Ports, MMIO and the log by which an instruction that was answered by the machine is executed again.
#include "engine/dbt/cpu/cpu.h"
#include "engine/dbt/cpu/lapic.h"

namespace bulkhead::engine::dbt {

// True when the machine has already answered this piece of the instruction. A guest cannot make one instruction need
// more answers than the log holds but by vector state saved to MMIO: what does not fit reads as all ones and is not
// written.
bool Cpu::next_answer(u64& value) {
  if (no_exit_ || (io_log.next == io_log.done && io_log.done == IoLog::kCapacity)) {
    value = ~u64{0};
    return true;
  }
  if (io_log.next == io_log.done) return false;
  value = io_log.value[io_log.next++];
  return true;
}

void Cpu::take_answer() {
  u64 value = 0;
  io_log.fault = false;
  if (const auto* port = std::get_if<PortExit>(&exit)) {
    value = port->value;
  } else if (const auto* mmio = std::get_if<MmioExit>(&exit)) {
    value = mmio->value;
  } else if (const auto* msr = std::get_if<MsrExit>(&exit)) {
    value = msr->value;
    io_log.fault = msr->fault;
  } else if (const auto* call = std::get_if<HypercallExit>(&exit)) {
    value = call->long_mode ? call->result : call->result & mask_for_size(4);
  } else {
    return;
  }
  io_log.next = 0;
  if (io_log.done < IoLog::kCapacity) io_log.value[io_log.done++] = value;
}

u64 Cpu::mmio_load(u64 gpa, unsigned size) {
  if (lapic->claims(gpa)) {
    const u32 offset = static_cast<u32>(gpa & 0xfff);
    u64 value = lapic->mmio_read(offset & ~3u);
    if (size == 8) value |= u64{lapic->mmio_read((offset & ~3u) + 4)} << 32;
    return (value >> 8 * (offset & 3)) & mask_for_size(size);
  }
  u64 value = 0;
  if (!next_answer(value)) escape_exit(MmioExit{Gpa{gpa}, static_cast<u8>(size), false, 0});
  return value & mask_for_size(size);
}

void Cpu::mmio_store(u64 gpa, unsigned size, u64 value) {
  if (lapic->claims(gpa)) {
    // Registers take aligned 32-bit writes only; what narrower ones do is undefined, so they do nothing.
    const u32 offset = static_cast<u32>(gpa & 0xfff);
    if (size >= 4 && (offset & 3) == 0) lapic->mmio_write(offset, static_cast<u32>(value));
    return;
  }
  u64 ignored = 0;
  if (!next_answer(ignored)) escape_exit(MmioExit{Gpa{gpa}, static_cast<u8>(size), true, value & mask_for_size(size)});
}

// [SDM-1 §19.5.2]: one bit for each port in the TSS, and a byte beyond.
void Cpu::check_port_permission(u16 port, unsigned size) {
  if (!protected_mode() || (s.cpl <= ((s.rflags & kIopl) >> 12) && !v8086())) return;
  if (deprivileged) raise(kGp, 0);  // there is no task state: ports are its handler's
  if (s.tr.unusable() || !(tss_type() & 8) || s.tr.limit < 103) raise(kGp, 0);
  const u64 map = load_system(s.tr.base + 102, 2);
  const u64 at = map + port / 8;
  if (at + 1 > s.tr.limit) raise(kGp, 0);
  const u64 denied = load_system(s.tr.base + at, 2) >> (port % 8);
  if (denied & ((1u << size) - 1)) raise(kGp, 0);
}

u64 Cpu::port_in(u16 port, unsigned size) {
  check_port_permission(port, size);
  u64 value = 0;
  if (!next_answer(value)) escape_exit(PortExit{port, static_cast<u8>(size), false, 0});
  note_port_access(port, size);
  return value & mask_for_size(size);
}

void Cpu::port_out(u16 port, unsigned size, u64 value) {
  check_port_permission(port, size);
  u64 ignored = 0;
  if (!next_answer(ignored)) escape_exit(PortExit{port, static_cast<u8>(size), true, value & mask_for_size(size)});
  note_port_access(port, size);
}

}  // namespace bulkhead::engine::dbt
