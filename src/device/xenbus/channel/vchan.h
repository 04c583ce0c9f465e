// The client's end of a connected vchan: two byte rings in pages that a program in the guest shares
// [xen/io/libxenvchan.h]. The offer is judged once, from a copy.
// Fidelity: all ring sizes up to kMaxOrder, notification suppression both ways, both ends' liveness.
// One thread at a time, except notify() of the event channel, which it owns.
#pragma once
#include <memory>

#include "base/result.h"
#include "device/xenbus/channel/shared_ring.h"
#include "device/xenbus/ports.h"
#include "device/xenbus/ring/granted_page.h"

namespace bulkhead::device::xenbus {

class Vchan {
 public:
  static constexpr u16 kMinOrder = 10, kMaxOrder = 20;  // of a ring's size in bytes

  // Maps what the server offers under `reference`. Error: the offer makes no sense, in words.
  static Result<std::unique_ptr<Vchan>> map(GrantPort& grants, u32 reference);
  ~Vchan();

  // Says that we are here.
  void start(std::unique_ptr<EventChannel> channel);

  SharedRing& from_guest() { return *from_guest_; }
  SharedRing& to_guest() { return *to_guest_; }
  // We took bytes, or put some: tells the server if it asked to be told.
  void took();
  void put();
  // Asks to be told of bytes, or of room; look again afterwards before sleeping.
  void want_bytes();
  void want_room();

  bool server_lives() const;
  // False: the page has been set up anew, for another client than us.
  bool is_ours() const;

 private:
  explicit Vchan(GrantedPage control) : control_{std::move(control)} {}
  Result<void> map_rings(GrantPort& grants);
  Result<std::vector<std::span<std::byte>>> map_ring(GrantPort& grants, u16 order, u32 first_grant, PageAccess access);
  u8& byte_at(std::size_t offset) const;
  void tell(u8 what);
  void ask(u8 what);

  GrantedPage control_;
  std::vector<GrantedPage> pages_;
  std::unique_ptr<SharedRing> from_guest_, to_guest_;
  std::unique_ptr<EventChannel> channel_;  // goes first
};

}  // namespace bulkhead::device::xenbus
