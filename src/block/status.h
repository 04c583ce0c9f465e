// How a disk request ended. Text for tools comes with it; what a guest is told is its transport's affair.
#pragma once
#include <expected>
#include <string_view>

#include "base/ints.h"

namespace bulkhead::block {

enum class IoStatus : u8 {
  kOk,
  kIoError,      // the host could not: EIO, a file cut short, anything without a name below
  kNoSpace,      // ENOSPC, EDQUOT, EFBIG: may work again when there is room
  kUnsupported,  // not by this node, or not for this range; nothing was changed
  kReadOnly,
  kOutOfRange,
  kCorrupt,    // the image contradicts itself; nothing more is written to it
  kCancelled,  // given up before it was begun: the disk is going away, a job was cancelled
};

// The value, or why there is none (never kOk).
template <class T>
using IoResult = std::expected<T, IoStatus>;

IoStatus status_of_errno(int error);        // `error` > 0
std::string_view text_of(IoStatus status);  // "no space left", ...: for a message's end

}  // namespace bulkhead::block
