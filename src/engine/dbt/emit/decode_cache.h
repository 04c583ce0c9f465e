// What was decoded lately, by where the bytes lie in the host's memory: looking ahead for live flags decodes what is
// mostly translated next.
#pragma once
#include <algorithm>
#include <memory>
#include <span>

#include "engine/dbt/front/insn.h"

namespace bulkhead::engine::dbt {

class DecodeCache {
 public:
  // The 64-bit instruction at `code`, of which `available` bytes may be looked at; good until the next call. `version`
  // must have changed since code was written to.
  DecodeStatus decode(const u8* code, u64 available, u32 version, const Insn*& out) {
    Entry& entry = (*entries_)[reinterpret_cast<u64>(code) % kEntries];
    out = &entry.insn;
    if (entry.code == code && entry.version == version) return DecodeStatus::kOk;
    const DecodeStatus status = dbt::decode(CodeSize::k64, {code, std::min<u64>(15, available)}, entry.insn);
    entry.code = status == DecodeStatus::kOk ? code : nullptr;
    entry.version = version;
    return status;
  }

 private:
  static constexpr unsigned kEntries = 2048;
  struct Entry {
    const u8* code = nullptr;
    u32 version = 0;
    Insn insn{};
  };
  std::unique_ptr<std::array<Entry, kEntries>> entries_ = std::make_unique<std::array<Entry, kEntries>>();
};

}  // namespace bulkhead::engine::dbt
