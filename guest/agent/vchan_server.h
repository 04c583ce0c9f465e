// The server's end of libxenvchan's two rings [xen/io/libxenvchan.h]: memory and indexes, no system calls.
// Freestanding: used by the agent, and by the tests of the monitor's end.
//
// The client may write anything anywhere at any moment: an index further away than the ring is long makes the channel
// broken for ever, and nothing outside the rings is ever touched.
#pragma once
#include <xen/io/libxenvchan.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace bulkhead::agent {

class VchanServer {
 public:
  static constexpr std::uint32_t kPage = 4096;
  static constexpr std::uint16_t kOrder = 16;  // of each ring's size in bytes
  static constexpr std::uint32_t kSize = 1u << kOrder, kPages = 1 + 2 * kSize / kPage;

  // `pages`: kPages of zeroes in a row, granted under `references` in that order.
  VchanServer(std::byte* pages, const std::uint32_t* references)
      : control_{reinterpret_cast<vchan_interface*>(pages)}, left_{pages + kPage}, right_{left_ + kSize} {
    control_->left_order = control_->right_order = kOrder;
    control_->cli_live = 2;  // not there yet
    control_->srv_live = 1;
    control_->cli_notify = control_->srv_notify = VCHAN_NOTIFY_WRITE;
    memcpy(pages + offsetof(vchan_interface, grants), references + 1, (kPages - 1) * sizeof *references);
  }

  bool broken() const { return broken_; }
  bool connected() const { return __atomic_load_n(&control_->cli_live, __ATOMIC_SEQ_CST) == 1; }

  // Bytes that there are, and bytes that there is room for.
  std::uint32_t used() { return checked(__atomic_load_n(&control_->left.prod, __ATOMIC_ACQUIRE) - taken_); }
  std::uint32_t room() {
    const std::uint32_t used = checked(put_ - __atomic_load_n(&control_->right.cons, __ATOMIC_ACQUIRE));
    return broken_ ? 0 : kSize - used;
  }
  // Asks the client to tell us of bytes, or of room. Look again before sleeping.
  void want_bytes() { __atomic_fetch_or(&control_->cli_notify, VCHAN_NOTIFY_WRITE, __ATOMIC_SEQ_CST); }
  void want_room() { __atomic_fetch_or(&control_->cli_notify, VCHAN_NOTIFY_READ, __ATOMIC_SEQ_CST); }

  // As much as there is, or fits. `tell`: the client wants an event for it.
  std::uint32_t read(void* out, std::uint32_t size, bool& tell) {
    size = least(size, used());
    copy(size, taken_, [&](std::uint32_t at, std::uint32_t done, std::uint32_t length) {
      memcpy(static_cast<std::byte*>(out) + done, left_ + at, length);
    });
    taken_ += size;
    __atomic_store_n(&control_->left.cons, taken_, __ATOMIC_RELEASE);
    tell = size > 0 && wanted(VCHAN_NOTIFY_READ);
    return size;
  }
  std::uint32_t write(const void* data, std::uint32_t size, bool& tell) {
    size = least(size, room());
    copy(size, put_, [&](std::uint32_t at, std::uint32_t done, std::uint32_t length) {
      memcpy(right_ + at, static_cast<const std::byte*>(data) + done, length);
    });
    put_ += size;
    __atomic_store_n(&control_->right.prod, put_, __ATOMIC_RELEASE);
    tell = size > 0 && wanted(VCHAN_NOTIFY_WRITE);
    return size;
  }
  void leave() { __atomic_store_n(&control_->srv_live, 0, __ATOMIC_SEQ_CST); }

 private:
  static std::uint32_t least(std::uint32_t a, std::uint32_t b) { return a < b ? a : b; }
  std::uint32_t checked(std::uint32_t used) {
    broken_ |= used > kSize;
    return broken_ ? 0 : used;
  }
  // Did the client ask to be told? Once for each asking.
  bool wanted(std::uint8_t what) {
    const auto rest = static_cast<std::uint8_t>(~what);
    return (__atomic_fetch_and(&control_->srv_notify, rest, __ATOMIC_SEQ_CST) & what) != 0;
  }
  template <class Copy>
  static void copy(std::uint32_t size, std::uint32_t index, Copy piece) {
    const std::uint32_t at = index & (kSize - 1), first = least(size, kSize - at);
    piece(at, 0, first);
    piece(0, first, size - first);
  }

  vchan_interface* const control_;
  std::byte *const left_, *const right_;  // client to server, server to client
  std::uint32_t taken_ = 0, put_ = 0;     // our indexes, which nobody else changes
  bool broken_ = false;
};

}  // namespace bulkhead::agent
