// A guest made of bytes: they say what is put into the ring, what is scribbled over the page, and when the store works.
#include <cstring>
#include <memory>
#include <string>

#include "device/xenbus/store/connection.h"
#include "device/xenbus/store/domain_zero.h"
#include "device/xenbus/store/setup_domain.h"
#include "device/xenbus/testing/xenstore_client.h"

namespace {

using namespace bulkhead;
using namespace bulkhead::device::xenbus;
using namespace bulkhead::device::xenbus::store;

class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : data_{data}, left_{size} {}
  bool empty() const { return left_ == 0; }
  u8 byte() {
    if (left_ == 0) return 0;
    --left_;
    return *data_++;
  }
  u32 word() {
    u32 value = 0;
    for (int i = 0; i < 4; ++i) value = value << 8 | byte();
    return value;
  }
  std::string text(size_t most) {
    std::string out;
    for (size_t n = byte() % (most + 1); n > 0 && left_ > 0; --n) out.push_back(static_cast<char>(byte()));
    return out;
  }

 private:
  const uint8_t* data_;
  size_t left_;
};

std::string a_path(Bytes& in) {
  static constexpr const char* kPaths[] = {"data",           "data/a",          "data/a/b", "control/shutdown",
                                           "name",           "/local/domain/2", "device",   "/",
                                           "@releaseDomain", "data/c/d/e"};
  const u8 which = in.byte();
  return which < 200 ? kPaths[which % std::size(kPaths)] : in.text(20);
}

void pump(Connection& connection) {
  for (int i = 0; i < 100 && connection.pump().more; ++i) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  alignas(4096) static std::byte page[4096];
  std::memset(page, 0, sizeof(page));
  Limits limits;
  limits.nodes = 40;
  limits.events = 8;
  limits.events_kept = 16;
  Store store{limits};
  DomainDescription domain;
  domain.uuid = "0-0";
  if (!setup_domain(store, domain)) __builtin_trap();
  {
    Connection connection{store, domain.domain, page, [] {}};
    testing::XenstoreClient client{page, [&] { pump(connection); }, 4};
    Bytes in{data, size};
    while (!in.empty()) {
      const u8 what = in.byte();
      if (what < 120) {
        std::string payload = a_path(in) + '\0';
        payload += in.text(12);
        if (what & 1) payload += '\0';
        client.put_bytes(testing::XenstoreClient::message(what % 24, in.byte(), in.byte() % 4, payload));
      } else if (what < 150) {
        client.put_bytes(in.text(255));
      } else if (what < 170) {
        const u32 value = in.word();
        std::memcpy(page + 2048 + 4 * (in.byte() % 7), &value, 4);
      } else if (what < 200) {
        if (client.page().rsp_prod - client.page().rsp_cons <= XENSTORE_RING_SIZE) client.collect();
      } else if (what < 205) {
        client.reconnect();
      } else {
        pump(connection);
      }
    }
    client.reconnect();
    if (client.read("domid") != "1") __builtin_trap();
  }
  if (store.usage(domain.domain).nodes > 40) __builtin_trap();
  remove_domain(store, domain);
  return 0;
}
