// grant_table_op: arrays of operations, each with a status of its own [xen/grant_table.h].
#include <algorithm>
#include <cstring>

#include "abi/xen/domain_parts.h"
#include "abi/xen/errors.h"

namespace bulkhead::abi::xen {
namespace {

constexpr u64 kMostOperations = 65536;  // in one call: more than any table has entries

template <class T, class Do>
i64 for_each(DomainParts& d, Guest& guest, u64 at, u64 count, Do act) {
  for (u64 i = 0; i < count; ++i, at += sizeof(T)) {
    T op;
    if (++d.vcpu[guest.vcpu()].work > kWorkLimit) return -kXEINVAL;
    if (!guest.read(at, op)) return -kXEFAULT;
    act(op);
    if (!guest.write(at, op)) return -kXEFAULT;
  }
  return 0;
}

i16 status_of_domain(const DomainParts& d, u16 domid) {
  if (d.is_self(domid)) return GNTST_okay;
  return domid == 0 ? GNTST_permission_denied : GNTST_bad_domain;
}

// The frame numbers of pages of ours.
template <class Page>
bool write_frames(DomainParts& d, Guest& guest, u64 at, u32 count, Page page) {
  for (u32 i = 0; i < count; ++i)
    if (!guest.write(at + i * sizeof(u64), d.frames.frame_of(page(i)))) return false;
  return true;
}

// The operations that do not come in arrays.
template <class T, class Do>
i64 just_one(Guest& guest, u64 at, u64 count, Do act) {
  T op;
  if (count != 1) return -kXEINVAL;
  if (!guest.read(at, op)) return -kXEFAULT;
  const i64 result = act(op);
  return guest.write(at, op) ? result : -kXEFAULT;
}

// Those of them that are about a domain's table.
template <class T, class Do>
i64 one_with_status(DomainParts& d, Guest& guest, u64 at, u64 count, Do act) {
  return just_one<T>(guest, at, count, [&](T& op) {
    op.status = status_of_domain(d, op.dom);
    if (op.status == GNTST_okay) op.status = act(op);
    return i64{0};
  });
}

i16 setup_table(DomainParts& d, Guest& guest, const gnttab_setup_table_t& op) {
  if (!d.grants.grow(op.nr_frames)) return GNTST_general_error;
  const auto page = [&](u32 i) { return d.grants.frame(i); };
  const bool written = write_frames(d, guest, reinterpret_cast<u64>(op.frame_list.p), op.nr_frames, page);
  return written ? GNTST_okay : GNTST_bad_virt_addr;
}

i16 get_status_frames(DomainParts& d, Guest& guest, const gnttab_get_status_frames_t& op) {
  if (op.nr_frames > d.grants.status_frames()) return GNTST_general_error;
  const auto page = [&](u32 i) { return d.grants.status_frame(i); };
  const bool written = write_frames(d, guest, reinterpret_cast<u64>(op.frame_list.p), op.nr_frames, page);
  return written ? GNTST_okay : GNTST_bad_virt_addr;
}

i16 query_size(DomainParts& d, gnttab_query_size_t& op) {
  op.nr_frames = d.grants.frames();
  op.max_nr_frames = d.grants.max_frames();
  return GNTST_okay;
}

i64 set_version(DomainParts& d, gnttab_set_version_t& op) {
  const i64 result = d.grants.set_version(op.version);
  op.version = d.grants.version();
  return result;
}

i64 get_version(DomainParts& d, gnttab_get_version_t& op) {
  if (!d.is_self(op.dom)) return op.dom == 0 ? -kXEPERM : -kXESRCH;
  op.version = d.grants.version();
  return 0;
}

// One side of a copy, pinned while it is used.
class CopySide {
 public:
  CopySide(DomainParts& d, const gnttab_copy::gnttab_copy_ptr& where, bool by_grant, bool writable, u16 length)
      : d_{d}, by_grant_{by_grant}, writable_{writable} {
    status_ = find(where);
    if (status_ != GNTST_okay) return;
    if (where.offset < access_.start || where.offset + length > access_.start + access_.length)
      status_ = by_grant ? GNTST_general_error : GNTST_bad_copy_arg;
    at_ = access_.page + where.offset;
  }
  ~CopySide() {
    if (taken_ && by_grant_)
      d_.grants.drop(reference_, writable_);
    else if (taken_)
      d_.frames.let_go(access_.frame, use());
  }
  CopySide(const CopySide&) = delete;
  i16 status() const { return status_; }
  std::byte* at() const { return at_; }
  u64 frame() const { return access_.frame; }

 private:
  // Only the guest itself has grants here: domain 0's memory is not offered to guests.
  i16 find(const gnttab_copy::gnttab_copy_ptr& where) {
    if (by_grant_) {
      if (!d_.is_self(where.domid)) return where.domid == 0 ? GNTST_bad_gntref : GNTST_bad_domain;
      reference_ = where.u.ref;
      const i16 status = d_.grants.take(reference_, d_.config.domid, writable_, true, access_);
      taken_ = status == GNTST_okay;
      return status;
    }
    if (!d_.is_self(where.domid)) return GNTST_permission_denied;
    access_ = {d_.frames.hold(where.u.gmfn, use()), where.u.gmfn, 0, kPageSize};
    taken_ = access_.page != nullptr;
    return taken_ ? i16{GNTST_okay} : i16{GNTST_bad_page};
  }

  Hold use() const { return writable_ ? Hold::kWrite : Hold::kRead; }

  DomainParts& d_;
  const bool by_grant_, writable_;
  GrantTable::Access access_;
  u32 reference_ = 0;
  bool taken_ = false;
  i16 status_ = GNTST_general_error;
  std::byte* at_ = nullptr;
};

i16 copy(DomainParts& d, const gnttab_copy_t& op) {
  if (op.source.offset + op.len > static_cast<int>(kPageSize) || op.dest.offset + op.len > static_cast<int>(kPageSize))
    return GNTST_bad_copy_arg;
  const CopySide source{d, op.source, (op.flags & GNTCOPY_source_gref) != 0, false, op.len};
  if (source.status() != GNTST_okay) return source.status();
  const CopySide dest{d, op.dest, (op.flags & GNTCOPY_dest_gref) != 0, true, op.len};
  if (dest.status() != GNTST_okay) return dest.status();
  std::memmove(dest.at(), source.at(), op.len);
  d.frames.note_written(dest.frame());
  return GNTST_okay;
}

i64 perform(DomainParts& d, Guest& guest, u64 command, u64 at, u64 count) {
  if (count > kMostOperations) return -kXEINVAL;
  switch (command) {
    case GNTTABOP_map_grant_ref:
      return for_each<gnttab_map_grant_ref_t>(d, guest, at, count,
                                              [&](auto& op) { op.status = d.grant_maps.map(guest.caller, op); });
    case GNTTABOP_unmap_grant_ref:
      return for_each<gnttab_unmap_grant_ref_t>(d, guest, at, count, [&](auto& op) {
        op.status = d.grant_maps.unmap(guest.caller, op.handle, op.host_addr, 0);
      });
    case GNTTABOP_unmap_and_replace:
      return for_each<gnttab_unmap_and_replace_t>(d, guest, at, count, [&](auto& op) {
        op.status = d.grant_maps.unmap(guest.caller, op.handle, op.host_addr, op.new_addr);
      });
    case GNTTABOP_setup_table:
      return one_with_status<gnttab_setup_table_t>(d, guest, at, count,
                                                   [&](auto& op) { return setup_table(d, guest, op); });
    case GNTTABOP_dump_table:
      return for_each<gnttab_dump_table_t>(d, guest, at, count, [](auto& op) { op.status = GNTST_permission_denied; });
    case GNTTABOP_transfer:  // to whom? there is only domain 0
      return for_each<gnttab_transfer_t>(d, guest, at, count, [](auto& op) { op.status = GNTST_permission_denied; });
    case GNTTABOP_copy:
      return for_each<gnttab_copy_t>(d, guest, at, count, [&](auto& op) { op.status = copy(d, op); });
    case GNTTABOP_query_size:
      return one_with_status<gnttab_query_size_t>(d, guest, at, count, [&](auto& op) { return query_size(d, op); });
    case GNTTABOP_set_version:
      return just_one<gnttab_set_version_t>(guest, at, count, [&](auto& op) { return set_version(d, op); });
    case GNTTABOP_get_status_frames:
      return one_with_status<gnttab_get_status_frames_t>(d, guest, at, count,
                                                         [&](auto& op) { return get_status_frames(d, guest, op); });
    case GNTTABOP_get_version:
      return just_one<gnttab_get_version_t>(guest, at, count, [&](auto& op) { return get_version(d, op); });
    case GNTTABOP_swap_grant_ref:
      return for_each<gnttab_swap_grant_ref_t>(d, guest, at, count,
                                               [&](auto& op) { op.status = d.grants.swap(op.ref_a, op.ref_b); });
    default:
      return d.unknown_operation().value;
  }
}
}  // namespace

Answer grant_table_op(DomainParts& domain, Guest& guest, const HypercallArgs& args) {
  return {perform(domain, guest, args[0], args[1], args[2])};
}

}  // namespace bulkhead::abi::xen
