// Why the store says no. The names are what goes over the wire [xen/io/xs_wire.h xsd_errors].
#pragma once
#include <expected>
#include <string_view>

#include "base/ints.h"

namespace bulkhead::device::xenbus::store {

enum class StoreError : u8 {
  kInvalid,       // not a path, not an argument
  kAccess,        // not yours to see or to change; also: whether it exists is not yours to know
  kExists,        // such a watch is there already
  kNoEntry,       // no such node, watch or transaction
  kNoSpace,       // a limit of the domain's
  kTooBig,        // does not fit into a message; too many watches
  kAgain,         // somebody else changed what the transaction relied on
  kBusy,          // a transaction in a transaction
  kUnknown,       // no such request
  kNotPermitted,  // only the owner's right
};

constexpr std::string_view error_name(StoreError error) {
  switch (error) {
    case StoreError::kInvalid:
      return "EINVAL";
    case StoreError::kAccess:
      return "EACCES";
    case StoreError::kExists:
      return "EEXIST";
    case StoreError::kNoEntry:
      return "ENOENT";
    case StoreError::kNoSpace:
      return "ENOSPC";
    case StoreError::kTooBig:
      return "E2BIG";
    case StoreError::kAgain:
      return "EAGAIN";
    case StoreError::kBusy:
      return "EBUSY";
    case StoreError::kUnknown:
      return "ENOSYS";
    case StoreError::kNotPermitted:
      return "EPERM";
  }
  return "EIO";
}

template <class T = void>
using Reply = std::expected<T, StoreError>;

}  // namespace bulkhead::device::xenbus::store
