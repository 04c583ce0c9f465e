// What the server counts, in memory that the monitor sees too (the server is another process). Written by the server,
// read by the monitor, which takes them for numbers and nothing else.
#pragma once
#include <array>
#include <atomic>
#include <string_view>

#include "base/ints.h"

namespace bulkhead::fs {

enum class Count : u8 {
  kRequests,         // all, also malformed ones
  kErrors,           // replies with an error; a name that is not there is one
  kMalformed,        // requests too short, too long, or with numbers that cannot be
  kUnknownNodes,     // node numbers that were not given out, or have been forgotten
  kUnknownHandles,   // handles that are not open, or not the node's
  kBadNames,         // empty, too long, ".", "..", or with a slash
  kForgetOverflows,  // nodes forgotten more often than they were looked up
  kReadOnly,         // changes refused because the share is read-only
  kForbidden,        // device nodes, extended attributes and flags that are not for zones
  kTooManyNodes,
  kTooManyHandles,
  kUnsupported,  // requests of a kind we do not know
  kNodes,        // known now
  kHandles,      // open now
  kConfined,     // 1: in namespaces of its own
};
inline constexpr std::array<std::string_view, 15> kCountNames{
    "server_requests",  "server_errors",    "malformed", "unknown_nodes", "unknown_handles",
    "bad_names",        "forget_overflows", "read_only", "forbidden",     "too_many_nodes",
    "too_many_handles", "unsupported",      "nodes",     "handles",       "confined"};

struct Counts {
  std::array<std::atomic<u64>, kCountNames.size()> values{};
  void add(Count which, u64 n = 1) { values[static_cast<std::size_t>(which)].fetch_add(n, std::memory_order_relaxed); }
  void sub(Count which, u64 n = 1) { values[static_cast<std::size_t>(which)].fetch_sub(n, std::memory_order_relaxed); }
  u64 value(Count which) const { return values[static_cast<std::size_t>(which)].load(std::memory_order_relaxed); }
};

}  // namespace bulkhead::fs
