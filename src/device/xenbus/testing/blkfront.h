// A disk's driver in the guest, with rings as the public headers lay them out.
#pragma once
#include <stdint.h>
#include <string.h>
#include <xen/io/blkif.h>
#include <xen/io/protocols.h>

#include <atomic>

#include "device/xenbus/blk/blk_backend.h"
#include "device/xenbus/testing/frontend.h"

namespace bulkhead::device::xenbus::testing {

// What a 32-bit compiler makes of the structures.
#pragma pack(push, 4)
struct BlkRequest32 {
  u8 operation, nr_segments;
  u16 handle;
  u64 id, sector_number;
  blkif_request_segment seg[BLKIF_MAX_SEGMENTS_PER_REQUEST];
};
struct BlkResponse32 {
  u64 id;
  u8 operation;
  i16 status;
};
#pragma pack(pop)
DEFINE_RING_TYPES(blkif32, BlkRequest32, BlkResponse32);

// The types of one ABI.
struct Abi64 {
  using Request = blkif_request;
  using Response = blkif_response;
  using SharedRing = blkif_sring;
  using FrontRing = blkif_front_ring;
  static constexpr const char* kProtocol = XEN_IO_PROTO_ABI_X86_64;
};
struct Abi32 {
  using Request = BlkRequest32;
  using Response = BlkResponse32;
  using SharedRing = blkif32_sring;
  using FrontRing = blkif32_front_ring;
  static constexpr const char* kProtocol = XEN_IO_PROTO_ABI_X86_32;
};

// One ring. One thread.
template <class Abi>
struct BlkfrontRing {
  using Request = typename Abi::Request;
  using Response = typename Abi::Response;

  BlkfrontRing(XenbusZone& of, unsigned order)
      : zone{of}, references{zone.grants.grant_run(1u << order)}, port{zone.events.allocate()} {
    shared = reinterpret_cast<typename Abi::SharedRing*>(zone.grants.page(references[0]));
    XEN_FRONT_RING_INIT(&ring, shared, references.size() * kPageSize);
  }

  bool full() const { return RING_FULL(&ring); }
  template <class Entry>
  void put(const Entry& entry) {
    static_assert(sizeof(Entry) <= sizeof(Request));
    memcpy(static_cast<void*>(RING_GET_REQUEST(&ring, ring.req_prod_pvt)), &entry, sizeof entry);
    ++ring.req_prod_pvt;
  }
  static u32 see(u32& shared_index) { return std::atomic_ref{shared_index}.load(); }
  static void show(u32& shared_index, u32 value) { std::atomic_ref{shared_index}.store(value); }

  // Shows what was put; an event only if the backend wants one. As RING_PUSH_REQUESTS_AND_CHECK_NOTIFY.
  void push() {
    const u32 before = see(shared->req_prod), after = ring.req_prod_pvt;
    show(shared->req_prod, after);
    if (after - see(shared->req_event) < after - before) zone.events.raise(port);
  }
  bool responses() { return see(shared->rsp_prod) != ring.rsp_cons; }
  // The next response; sleeps only as RING_FINAL_CHECK_FOR_RESPONSES allows. None: nothing came for a very long time.
  std::optional<Response> next() {
    while (!responses()) {
      const u64 seen = zone.events.notifications(port);
      show(shared->rsp_event, ring.rsp_cons + 1);
      if (!responses() && !zone.events.await(port, seen)) return std::nullopt;
    }
    Response response;
    memcpy(&response, RING_GET_RESPONSE(&ring, ring.rsp_cons), sizeof response);
    ++ring.rsp_cons;
    return response;
  }
  template <class Entry>
  int ask(const Entry& entry) {
    put(entry);
    push();
    const std::optional<Response> response = next();
    u8 operation = entry.operation;
    if constexpr (requires { entry.indirect_op; }) operation = entry.indirect_op;
    if (!response || response->id != entry.id || response->operation != operation) return 9999;
    return response->status;
  }

  XenbusZone& zone;
  const std::vector<u32> references;
  const u32 port;
  typename Abi::SharedRing* shared;
  typename Abi::FrontRing ring;
};

struct BlkfrontOptions {
  unsigned queues = 1, order = 0;
  bool persistent = false, say_protocol = true;
};

template <class Abi = Abi64>
class Blkfront : public XenbusFrontend {
 public:
  using Ring = BlkfrontRing<Abi>;
  using Request = typename Abi::Request;

  explicit Blkfront(XenbusZone& of, BlkfrontOptions options = {}, u32 id = BlkBackend::device_number(0))
      : XenbusFrontend{of, "vbd", id}, options_{options} {}

  void prepare() {
    rings.clear();
    if (options_.say_protocol) say("protocol", Abi::kProtocol);
    say("feature-persistent", options_.persistent);
    if (options_.order > 0) say("ring-page-order", options_.order);
    if (options_.queues > 1) say("multi-queue-num-queues", options_.queues);
    for (unsigned i = 0; i < options_.queues; ++i) {
      rings.push_back(std::make_unique<Ring>(zone, options_.order));
      const std::string prefix = options_.queues > 1 ? fmt::format("queue-{}/", i) : "";
      say(prefix + "event-channel", rings[i]->port);
      if (options_.order == 0) say(prefix + "ring-ref", rings[i]->references[0]);
      for (u32 page = 0; options_.order > 0 && page < rings[i]->references.size(); ++page)
        say(fmt::format("{}ring-ref{}", prefix, page), rings[i]->references[page]);
    }
  }
  bool connect() {
    if (!await(State::kInitWait)) return false;
    prepare();
    say(State::kInitialised);
    if (!await(State::kConnected)) return false;
    say(State::kConnected);
    return true;
  }

  // A request of whole pages.
  Request request(u8 operation, u64 sector, const std::vector<u32>& pages) {
    Request entry{};
    entry.operation = operation;
    entry.nr_segments = static_cast<u8>(pages.size());
    entry.id = next_id_++;
    entry.sector_number = sector;
    for (std::size_t i = 0; i < pages.size() && i < BLKIF_MAX_SEGMENTS_PER_REQUEST; ++i)
      entry.seg[i] = {pages[i], 0, 7};
    return entry;
  }
  int ask(u8 operation, u64 sector, const std::vector<u32>& pages) {
    return rings[0]->ask(request(operation, sector, pages));
  }

  std::vector<std::unique_ptr<Ring>> rings;

 private:
  const BlkfrontOptions options_;
  u64 next_id_ = 0x1234'0000'0001;
};

}  // namespace bulkhead::device::xenbus::testing
