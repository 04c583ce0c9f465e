#include "abi/xen/pv/builder.h"

#include <xen/xen.h>

#include <algorithm>
#include <cstring>

#include "abi/image/kernel.h"
#include "base/assert.h"
#include "spec/elf.h"

namespace bulkhead::abi::xen::pv {
namespace {

constexpr u64 kStartAlignment = 4_MiB, kStartPadding = 512_KiB;
constexpr u64 kLeafFlags = kPresent | kWritable | kUser | kAccessed | kDirty, kTableFlags = kLeafFlags;

// What the kernel says in its notes.
struct Notes {
  u64 virtual_base = 0;               // virtual address of frame 0
  std::optional<u64> hypercall_page;  // newer kernels make their own
  std::optional<u64> p2m;             // where it wants the p2m list; else behind the kernel
  bool initrd_by_frame = false;
  bool extended_cr3 = false;  // says something of 32-bit kernels only, but Xen hands it on to all
};

// An address that a guest may use, if not all behind it.
bool guests_own(u64 address) {
  return sign_extend(address, 6) == address &&
         (address < kMachineToPhysicalStart || address >= engine::DeprivilegedCpu::kKernelHalf);
}

Result<Notes> read_notes(const ElfFile& elf) {
  Notes notes;
  const auto base = elf.xen_number(spec::elf::kXenNoteVirtBase);
  if (!base) return fail("its Xen notes lack the virtual base (note 3)");
  const u64 offset = elf.xen_number(spec::elf::kXenNotePaddrOffset).value_or(0);
  notes.virtual_base = *base - offset;
  notes.hypercall_page = elf.xen_number(spec::elf::kXenNoteHypercallPage);
  notes.p2m = elf.xen_number(spec::elf::kXenNoteInitP2m);
  notes.initrd_by_frame = elf.xen_number(spec::elf::kXenNoteModStartPfn).value_or(0) == 1;
  notes.extended_cr3 = elf.xen_text(spec::elf::kXenNoteFeatures).contains("pae_pgdir_above_4gb");
  const u64 page = notes.hypercall_page.value_or(notes.virtual_base), p2m = notes.p2m.value_or(0);
  if (notes.virtual_base % kPageSize != 0 || page % kPageSize != 0 || page < notes.virtual_base || p2m % 1_GiB != 0 ||
      !guests_own(notes.virtual_base) || !guests_own(p2m))
    return fail("its Xen notes name addresses that cannot be (base {:#x}, hypercall page {:#x}, p2m {:#x})",
                notes.virtual_base, page, p2m);
  return notes;
}

u64 pages(u64 bytes) { return (bytes + kPageSize - 1) / kPageSize; }
// Tables of one level that [from, to) needs.
u64 tables_for(u64 from, u64 to, unsigned level) {
  const unsigned shift = 12 + 9 * level;
  return ((to - 1) >> shift) - (from >> shift) + 1;
}

class Builder {
 public:
  Builder(const BuildRequest& request, const GuestMemory& memory, const Layout& layout)
      : request_{request}, memory_{memory}, layout_{layout} {}

  Result<Built> run() {
    if (request_.command_line.size() >= MAX_GUEST_CMDLINE)
      return fail("the kernel command line of {} bytes is too long: a Xen PV guest takes {}",
                  request_.command_line.size(), MAX_GUEST_CMDLINE - 1);
    BH_ASSIGN(const Kernel kernel, load_kernel(request_.kernel_path, memory_, Protocol::kXenPv));
    const auto named = [&](const Error& error) { return fail("the kernel {}: {}", kernel.path, error.message); };
    const auto notes = read_notes(kernel.elf);
    if (!notes) return named(notes.error());
    notes_ = *notes;
    u64 end = 0;
    for (const Segment& s : kernel.elf.loads) end = std::max(end, s.paddr + s.memory_size);
    next_ = pages(end);
    if (const auto placed = place(); !placed) return named(placed.error());
    if (notes_.initrd_by_frame) BH_TRY(load_initrd());
    if (const auto fits = check_fits(); !fits) return named(fits.error());
    fill_hypercall_page();
    fill_p2m();
    map(notes_.virtual_base, 0, mapped_pages_, first_table_);
    if (notes_.p2m) map(*notes_.p2m, p2m_, pages(layout_.ram_frames * 8), p2m_tables_);
    protect_tables();
    fill_start_info();
    for (u64* const frame : {&built_.start_info_frame, &built_.store_frame, &built_.console_frame})
      *frame += layout_.first;
    built_.description = kernel.description;
    if (notes_.extended_cr3) built_.vm_assists |= u64{1} << VMASST_TYPE_pae_extended_cr3;
    built_.entry = {kernel.entry, virtual_of(stack_ + 1), virtual_of(start_info_), machine(top_)};
    return built_;
  }

 private:
  u64 take(u64 count) { return next_ += count, next_ - count; }
  u64 virtual_of(u64 frame) const { return notes_.virtual_base + (frame << kPageShift); }
  u64* table(u64 frame) const { return reinterpret_cast<u64*>(memory_.host(Gpa{frame << kPageShift}, kPageSize)); }

  Result<void> place() {
    if (!notes_.initrd_by_frame) BH_TRY(load_initrd());
    const u64 list = pages(layout_.ram_frames * 8);
    if (!notes_.p2m) p2m_ = take(list);
    built_.start_info_frame = start_info_ = take(1);
    built_.store_frame = take(1);
    built_.console_frame = take(1);
    first_table_ = next_;
    BH_TRY(check_fits());
    // The tables map themselves, so their number depends on itself.
    const u64 base = notes_.virtual_base;
    BH_ASSIGN(const u64 wanted, wanted_pages());
    u64 count = 0;
    for (u64 guess = 4;; guess = count) {
      const u64 end = (next_ + guess + 1) << kPageShift;
      if (base != 0 && end + kStartPadding + kStartAlignment > -base)
        return fail("its Xen notes leave no room behind its base {:#x}", base);
      mapped_pages_ = std::max(pages(align_up(base + end + kStartPadding, kStartAlignment) - base), wanted);
      const u64 to = base + (mapped_pages_ << kPageShift);
      count = 1 + tables_for(base, to, 1) + tables_for(base, to, 2) + tables_for(base, to, 3);
      if (count <= guess) break;
    }
    table_frames_ = count;
    take(count);
    stack_ = take(1);
    next_ = std::max(next_, mapped_pages_);
    if (notes_.p2m) {
      p2m_ = take(list);
      p2m_tables_ = next_;
      p2m_frames_ = p2m_room();
      next_ = p2m_ + p2m_frames_;
    }
    return check_fits();
  }

  // The p2m list at its own address, and the tables that map it.
  u64 p2m_room() const {
    const u64 list = pages(layout_.ram_frames * 8), from = *notes_.p2m, to = from + list * kPageSize;
    return list + tables_for(from, to, 1) + tables_for(from, to, 2) + tables_for(from, to, 3);
  }

  // More is mapped than must be, for Linux makes these tables those of its direct map and need not make them by itself,
  // a hypercall for each and an entry at a time. That is as much as one table of level 2 can map; what Linux drops of
  // the kernel's own map ends where the p2m list begins, right behind.
  Result<u64> wanted_pages() const {
    if (!notes_.p2m) return 0;
    u64 others = p2m_room();
    if (notes_.initrd_by_frame && !request_.initrd_path.empty()) {
      BH_ASSIGN(const FileSource initrd, FileSource::open("initrd", request_.initrd_path));
      others += pages(initrd.size());
    }
    const u64 base = notes_.virtual_base, room = align_up(base + 1, 1_GiB) - base;
    const u64 bytes = std::min((layout_.ram_frames - std::min(layout_.ram_frames, others)) << kPageShift, room);
    return pages(align_down(base + bytes, kStartAlignment) - base);
  }

  Result<void> check_fits() const {
    if (next_ <= layout_.ram_frames) return {};
    return fail("needs at least {} MiB of memory to start as a Xen PV guest, and the zone has {}",
                (next_ * kPageSize >> 20) + 1, layout_.ram_frames * kPageSize >> 20);
  }

  Result<void> load_initrd() {
    if (request_.initrd_path.empty()) return {};
    BH_ASSIGN(initrd_, load_at("initrd", request_.initrd_path, memory_, Gpa{next_ << kPageShift}));
    next_ = pages(initrd_.end().value);
    return {};
  }

  // One call of 32 bytes for each number [xen/xen.h "hypercall page"].
  void fill_hypercall_page() {
    if (!notes_.hypercall_page) return;
    const u64 frame = (*notes_.hypercall_page - notes_.virtual_base) >> kPageShift;
    auto* const page = reinterpret_cast<u8*>(table(frame));
    if (frame >= layout_.ram_frames || page == nullptr) return;
    std::memset(page, 0xcc, kPageSize);
    for (unsigned i = 0; i < kPageSize / 32; ++i) {
      u8* at = page + i * 32;
      const auto put = [&at](std::initializer_list<u8> bytes) { at = std::ranges::copy(bytes, at).out; };
      put({0x51, 0x41, 0x53});                                    // push rcx; push r11
      if (i == __HYPERVISOR_iret) put({0x50});                    // push rax
      put({0xb8, static_cast<u8>(i), 0, 0, 0, 0x0f, 0x05});       // mov eax, i; syscall
      if (i != __HYPERVISOR_iret) put({0x41, 0x5b, 0x59, 0xc3});  // pop r11; pop rcx; ret
    }
  }

  void fill_p2m() {
    for (u64 i = 0; i < layout_.ram_frames; i += kEntries) {
      u64* const list = table(p2m_ + i / kEntries);
      for (u64 k = 0; k < std::min<u64>(kEntries, layout_.ram_frames - i); ++k) list[k] = machine(i + k);
    }
  }

  // Tables and lists name machine frames; everything else here is physical.
  u64 machine(u64 frame) const { return layout_.first + frame; }
  u64 physical(u64 entry) const { return frame_of_entry(entry) - layout_.first; }

  // Maps `count` frames from `frame` on at `linear`; tables are taken from `next_table` on.
  void map(u64 linear, u64 frame, u64 count, u64 next_table) {
    if (top_ == 0) top_ = next_table++;
    while (count > 0) {
      u64 at = top_;
      for (unsigned level = 4; level > 1; --level) {
        u64& entry = table(at)[index_at(level, linear)];
        if (!(entry & kPresent)) entry = make_entry(machine(next_table++), kTableFlags);
        at = physical(entry);
      }
      const u64 first = index_at(1, linear), here = std::min<u64>(count, kEntries - first);
      u64* const entries = table(at) + first;
      for (u64 i = 0; i < here; ++i) entries[i] = make_entry(machine(frame + i), kLeafFlags);
      linear += here << kPageShift;
      frame += here;
      count -= here;
    }
  }

  // Tables may only be mapped for reading.
  void protect_tables() {
    const auto protect = [this](u64 frame) {
      if (frame >= mapped_pages_) return;
      u64 at = top_;
      for (unsigned level = 4; level > 1; --level) at = physical(table(at)[index_at(level, virtual_of(frame))]);
      table(at)[index_at(1, virtual_of(frame))] &= ~kWritable;
    };
    for (u64 i = 0; i < table_frames_; ++i) protect(first_table_ + i);
    for (u64 i = p2m_tables_; p2m_tables_ != 0 && i < p2m_ + p2m_frames_; ++i) protect(i);
  }

  void fill_start_info() {
    auto& info = *reinterpret_cast<start_info_t*>(table(start_info_));
    std::strcpy(info.magic, "xen-3.0-x86_64");
    info.nr_pages = layout_.ram_frames;
    info.shared_info = layout_.shared_info << kPageShift;
    info.store_mfn = machine(built_.store_frame);
    info.console.domU.mfn = machine(built_.console_frame);
    info.pt_base = virtual_of(first_table_);
    info.nr_pt_frames = table_frames_;
    info.mfn_list = notes_.p2m ? *notes_.p2m : virtual_of(p2m_);
    if (initrd_.size != 0) {
      info.mod_start =
          notes_.initrd_by_frame ? initrd_.start.value >> kPageShift : virtual_of(initrd_.start.value >> kPageShift);
      info.mod_len = initrd_.size;
      if (notes_.initrd_by_frame) info.flags |= SIF_MOD_START_PFN;
    }
    std::memcpy(info.cmd_line, request_.command_line.data(), request_.command_line.size());
    if (notes_.p2m) {
      info.first_p2m_pfn = p2m_;
      info.nr_p2m_frames = p2m_frames_;
    }
    auto& shared = *reinterpret_cast<shared_info_t*>(table(layout_.shared_info - layout_.first));
    for (auto& vcpu : shared.vcpu_info) vcpu.evtchn_upcall_mask = 1;
  }

  const BuildRequest& request_;
  const GuestMemory& memory_;
  const Layout& layout_;
  Notes notes_;
  Built built_;
  Extent initrd_;
  u64 next_ = 0;
  u64 p2m_ = 0, p2m_tables_ = 0, p2m_frames_ = 0;
  u64 start_info_ = 0, stack_ = 0;
  u64 first_table_ = 0, table_frames_ = 0, top_ = 0;
  u64 mapped_pages_ = 0;
};

}  // namespace

void set_ports(const Built& built, const GuestMemory& memory, u32 store_port, u32 console_port) {
  auto& info = *reinterpret_cast<start_info_t*>(memory.host(Gpa{built.start_info_frame << kPageShift}, kPageSize));
  info.store_evtchn = store_port;
  info.console.domU.evtchn = console_port;
}

Result<Built> build(const BuildRequest& request, const GuestMemory& memory, const Layout& layout) {
  return Builder{request, memory, layout}.run();
}

}  // namespace bulkhead::abi::xen::pv
