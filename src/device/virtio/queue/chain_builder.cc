#include "device/virtio/queue/chain_builder.h"

#include <algorithm>

#include "spec/virtio.h"

namespace bulkhead::device::virtio {

using namespace spec::virtio;

Fault ChainBuilder::add(u64 address, u32 length, bool writable) {
  // The specification does not forbid empty descriptors, but no driver has a use for one, and they cost us work
  // without costing the guest memory.
  if (length == 0) return Fault::kZeroLength;
  if (++count_ > limits_.buffers) return Fault::kTooLong;
  if (!writable && !into_->writable.empty()) return Fault::kReadAfterWrite;
  u64& total = writable ? into_->writable_bytes : into_->readable_bytes;
  if (length > limits_.bytes - into_->readable_bytes - into_->writable_bytes) return Fault::kTooManyBytes;
  auto& list = writable ? into_->writable : into_->readable;
  if (std::byte* const host = memory_.host(Gpa{address}, length); host != nullptr) [[likely]] {
    list.push_back({host, length});
    total += length;
    return Fault::kNone;
  }
  // It may still cross from one RAM range into the next, which need not be neighbours on the host.
  for (u64 done = 0; done < length;) {
    const Gpa here{address + done};
    u64 room = 0;
    for (const RamRange& range : memory_.ranges())
      if (range.contains(here, 1)) room = range.size - (here - range.start);
    if (room == 0 || here.value < address) return Fault::kNotRam;
    room = std::min(room, length - done);
    list.push_back({memory_.host(here, room), room});
    done += room;
  }
  total += length;
  return Fault::kNone;
}

Fault ChainBuilder::load_table(u64 address, u32 length) {
  if (length == 0 || length % kDescBytes != 0) return Fault::kBadTable;
  if (length / kDescBytes > limits_.buffers) return Fault::kTooLong;
  table_.resize(length / sizeof(u64));
  return memory_.read(Gpa{address}, std::as_writable_bytes(std::span{table_})) ? Fault::kNone : Fault::kBadTable;
}

Fault ChainBuilder::add_split_table(u64 address, u32 length) {
  if (const Fault fault = load_table(address, length); fault != Fault::kNone) return fault;
  const u32 entries = length / kDescBytes;
  u32 at = 0;
  for (u32 steps = 0; steps < entries; ++steps) {
    const Descriptor entry = load_split_descriptor(reinterpret_cast<std::byte*>(&table_[at * 2]));
    if (entry.flags & kDescIndirect) return Fault::kIndirectRefused;
    if (const Fault fault = add(entry.address, entry.length, entry.flags & kDescWrite); fault != Fault::kNone)
      return fault;
    if (!(entry.flags & kDescNext)) return Fault::kNone;
    if (entry.next >= entries) return Fault::kBadIndex;
    at = entry.next;
  }
  return Fault::kLoop;
}

Fault ChainBuilder::add_packed_table(u64 address, u32 length) {
  if (const Fault fault = load_table(address, length); fault != Fault::kNone) return fault;
  for (u32 at = 0; at < length / kDescBytes; ++at) {
    const PackedDescriptor entry = load_packed_descriptor(reinterpret_cast<std::byte*>(&table_[at * 2]));
    // Only WRITE means anything here, the rest is to be ignored [virtio-1.3 §2.8.7]; nesting would be a mistake all
    // the same and is named as one.
    if (entry.flags & kDescIndirect) return Fault::kIndirectRefused;
    if (const Fault fault = add(entry.address, entry.length, entry.flags & kDescWrite); fault != Fault::kNone)
      return fault;
  }
  return Fault::kNone;
}

}  // namespace bulkhead::device::virtio
