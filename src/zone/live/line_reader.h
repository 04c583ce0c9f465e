// Cuts what a stranger sends into lines; holds no more than one line of the longest length and what came with its end.
#pragma once
#include <algorithm>
#include <optional>
#include <string>
#include <string_view>

#include "base/ints.h"

namespace bulkhead::zone {

class LineReader {
 public:
  explicit LineReader(std::size_t longest) : longest_{longest} {}  // without the newline
  // Bytes that may be fed now; at least 1 unless there is a line, or one that is too long.
  std::size_t room() const { return too_long() ? 0 : longest_ + 1 - std::min(buffer_.size(), longest_ + 1); }
  void feed(std::string_view bytes) { buffer_ += bytes; }
  bool has_line() const { return buffer_.contains('\n'); }
  bool too_long() const { return buffer_.size() > longest_ && !has_line(); }
  std::optional<std::string> next() {
    const std::size_t end = buffer_.find('\n');
    if (end == std::string::npos) return std::nullopt;
    std::string line = buffer_.substr(0, end);
    buffer_.erase(0, end + 1);
    return line;
  }

 private:
  std::size_t longest_;
  std::string buffer_;
};

}  // namespace bulkhead::zone
