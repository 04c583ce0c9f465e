#include "block/status.h"

#include <cerrno>

namespace bulkhead::block {

IoStatus status_of_errno(int error) {
  switch (error) {
    case 0:
      return IoStatus::kOk;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return IoStatus::kNoSpace;
    case EOPNOTSUPP:
    case ENOSYS:
    case ENOTTY:
    case ENODEV:
      return IoStatus::kUnsupported;
    case EROFS:
    case EBADF:
      return IoStatus::kReadOnly;
    case ECANCELED:
      return IoStatus::kCancelled;
    default:
      return IoStatus::kIoError;
  }
}

std::string_view text_of(IoStatus status) {
  switch (status) {
    case IoStatus::kOk:
      return "no error";
    case IoStatus::kIoError:
      return "input/output error";
    case IoStatus::kNoSpace:
      return "no space left on the host";
    case IoStatus::kUnsupported:
      return "operation not supported";
    case IoStatus::kReadOnly:
      return "read-only";
    case IoStatus::kOutOfRange:
      return "out of range";
    case IoStatus::kCorrupt:
      return "the image is corrupt";
    case IoStatus::kCancelled:
      return "cancelled";
  }
  return "?";
}

}  // namespace bulkhead::block
