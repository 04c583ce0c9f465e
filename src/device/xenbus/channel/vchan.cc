#include "device/xenbus/channel/vchan.h"

#include <xen/io/libxenvchan.h>

#include <atomic>
#include <cstddef>
#include <cstring>

namespace bulkhead::device::xenbus {
namespace {

// Left is what the client writes, right what it reads.
constexpr std::size_t kGrants = offsetof(vchan_interface, grants);
constexpr u8 kGone = 0, kHere = 1;
constexpr u16 kPageOrder = kPageShift;

u32 pages_of(u16 order) { return order < kPageOrder ? 0 : 1u << (order - kPageOrder); }

bool order_is_good(u16 order) { return order >= Vchan::kMinOrder && order <= Vchan::kMaxOrder; }

// Where the control structure and its list of grants must end: small rings live in the same page behind it.
std::size_t control_limit(u16 left, u16 right) {
  std::size_t limit = kPageSize;
  for (const u16 order : {left, right})
    if (order < kPageOrder) limit = std::min<std::size_t>(limit, std::size_t{1} << order);
  return limit;
}

}  // namespace

Result<std::unique_ptr<Vchan>> Vchan::map(GrantPort& grants, u32 reference) {
  GrantedPage control{grants, reference, PageAccess::kWrite};
  if (!control) return fail("ring-ref: reference {} is not granted to us", reference);
  std::unique_ptr<Vchan> vchan{new Vchan{std::move(control)}};
  BH_TRY(vchan->map_rings(grants));
  return vchan;
}

Vchan::~Vchan() {
  if (channel_ == nullptr) return;
  if (is_ours()) std::atomic_ref{byte_at(offsetof(vchan_interface, cli_live))}.store(kGone);
  channel_->notify();
}

Result<void> Vchan::map_rings(GrantPort& grants) {
  vchan_interface offer;
  std::memcpy(&offer, control_.data(), sizeof offer);
  const u16 left = offer.left_order, right = offer.right_order;
  if (!order_is_good(left) || !order_is_good(right)) return fail("rings of order {} and {}", left, right);
  if (left == right && left < kPageOrder) return fail("both rings lie in the same place");
  const u32 count = pages_of(left) + pages_of(right);
  if (kGrants + count * sizeof(u32) > control_limit(left, right)) return fail("the grants reach into the rings");
  BH_ASSIGN(auto left_pieces, map_ring(grants, left, 0, PageAccess::kWrite));
  BH_ASSIGN(auto right_pieces, map_ring(grants, right, pages_of(left), PageAccess::kRead));
  auto* const shared = reinterpret_cast<vchan_interface*>(control_.data());
  to_guest_ = std::make_unique<SharedRing>(std::move(left_pieces), &shared->left.prod, &shared->left.cons);
  from_guest_ = std::make_unique<SharedRing>(std::move(right_pieces), &shared->right.cons, &shared->right.prod);
  return {};
}

Result<std::vector<std::span<std::byte>>> Vchan::map_ring(GrantPort& grants, u16 order, u32 first_grant,
                                                          PageAccess access) {
  std::vector<std::span<std::byte>> pieces;
  if (order < kPageOrder) {
    const std::size_t size = std::size_t{1} << order;  // and that far into the page
    pieces.push_back({control_.data() + size, size});
    return pieces;
  }
  for (u32 i = 0; i < pages_of(order); ++i) {
    u32 reference;
    std::memcpy(&reference, control_.data() + kGrants + (first_grant + i) * sizeof reference, sizeof reference);
    pages_.emplace_back(grants, reference, access);
    if (!pages_.back()) return fail("page {} of the rings: reference {} is not granted to us", i, reference);
    pieces.push_back({pages_.back().data(), kPageSize});
  }
  return pieces;
}

u8& Vchan::byte_at(std::size_t offset) const { return *reinterpret_cast<u8*>(control_.data() + offset); }

void Vchan::start(std::unique_ptr<EventChannel> channel) {
  channel_ = std::move(channel);
  std::atomic_ref{byte_at(offsetof(vchan_interface, srv_notify))}.store(VCHAN_NOTIFY_WRITE);
  std::atomic_ref{byte_at(offsetof(vchan_interface, cli_live))}.store(kHere);
  channel_->notify();
}

// cli_notify is what the server wants to hear of us, srv_notify what we want to hear of it.
void Vchan::tell(u8 what) {
  // Ordered behind our index, which the server must see first.
  const u8 wanted = std::atomic_ref{byte_at(offsetof(vchan_interface, cli_notify))}.fetch_and(static_cast<u8>(~what));
  if (wanted & what) channel_->notify();
}

void Vchan::ask(u8 what) { std::atomic_ref{byte_at(offsetof(vchan_interface, srv_notify))}.fetch_or(what); }

void Vchan::took() { tell(VCHAN_NOTIFY_READ); }
void Vchan::put() { tell(VCHAN_NOTIFY_WRITE); }
void Vchan::want_bytes() { ask(VCHAN_NOTIFY_WRITE); }
void Vchan::want_room() { ask(VCHAN_NOTIFY_READ); }

bool Vchan::server_lives() const {
  return std::atomic_ref{byte_at(offsetof(vchan_interface, srv_live))}.load() != kGone;
}

bool Vchan::is_ours() const { return std::atomic_ref{byte_at(offsetof(vchan_interface, cli_live))}.load() == kHere; }

}  // namespace bulkhead::device::xenbus
