// A guest made of bytes against Xen's network back end: what its driver says in the store, both rings, and grants that
// come and go.
#include <cstring>

#include "device/xenbus/testing/netfront.h"
#include "net/testing/memory_end.h"

namespace {

using namespace bulkhead;
using namespace bulkhead::device;
using namespace bulkhead::device::xenbus;
using bulkhead::device::xenbus::testing::Netfront;
using bulkhead::device::xenbus::testing::NetfrontQueue;
using bulkhead::device::xenbus::testing::XenbusZone;

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : data_{data}, left_{size} {}
  bool empty() const { return left_ == 0; }
  u8 byte() {
    if (left_ == 0) return 0;
    --left_;
    return *data_++;
  }
  u16 pair() { return static_cast<u16>(byte() << 8 | byte()); }

 private:
  const std::uint8_t* data_;
  std::size_t left_;
};

NetSettings settings() {
  NetSettings all;
  all.mac = {2, 0, 0, 0, 0, 7};
  all.queues = 2;
  return all;
}

constexpr unsigned kPages = 8;

void act(Input& in, XenbusZone& zone, net::testing::MemoryEnd& end, NetfrontQueue& queue, u32 first_page) {
  const u8 what = in.byte();
  const u32 page = what & 128 ? in.pair() : first_page + what / 8 % kPages;
  switch (what % 8) {
    case 0:
    case 1: {
      netif_tx_request one{page, in.pair(), in.byte(), in.byte(), in.pair()};
      if (what & 64) one.size &= 4095;
      if (what & 32) one.offset = 0;
      queue.put_out(one);
      break;
    }
    case 2: {
      netif_extra_info extra{};
      for (unsigned i = 0; i < sizeof extra; ++i) reinterpret_cast<u8*>(&extra)[i] = in.byte();
      queue.put_out(extra);
      break;
    }
    case 3:
      queue.push_out();
      break;
    case 4:
      queue.offer(page, in.byte());
      break;
    case 5: {
      net::FrameHeader header{in.byte(), in.byte(), 0, in.pair(), in.byte(), in.byte()};
      end.queues[0].put(std::string(in.pair() % 9000, static_cast<char>(in.byte())), header);
      break;
    }
    case 6: {
      // Any index of either ring's shared page, or what a page of ours holds.
      const u32 values[] = {queue.out_page, queue.in_page, first_page + in.byte() % kPages};
      const u32 at = values[what / 8 % 3], offset = what & 64 ? in.byte() % 16 * 4u : in.pair() % 4093u;
      const u32 value = what & 128 ? u32{in.pair()} << 16 | in.pair() : in.byte();
      std::memcpy(zone.grants.page(at) + offset, &value, sizeof value);
      break;
    }
    default:
      zone.events.raise(what & 8 ? queue.out_port : queue.in_port);
      if ((what & 0xf0) == 0xf0) zone.grants.revoke(first_page + in.byte() % kPages);
      break;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input in{data, size};
  net::testing::MemoryEnd end{2};
  NetCore core{end, settings()};
  XenbusZone zone{XenbusZone::kForEver, 64};
  if (!zone.bus.add(0, std::make_unique<NetBackend>(core, zone.grants, zone.events, 0))) __builtin_trap();
  const u8 how = in.byte();
  Netfront front{zone,
                 {.queues = 1u + how % 2,
                  .split = (how & 2) != 0,
                  .sg = (how & 4) != 0,
                  .gso = (how & 8) != 0,
                  .checksum = (how & 16) != 0}};
  if (!front.connect()) __builtin_trap();
  const std::vector<u32> pages = zone.grants.grant_run(kPages);
  for (unsigned i = 0; i < 400 && !in.empty(); ++i)
    act(in, zone, end, *front.queues[i % front.queues.size()], pages[0]);
  return 0;
}
