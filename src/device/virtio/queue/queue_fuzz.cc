// The guest's memory and what it asks of a queue, from the fuzzer's bytes: any rings, any descriptors, any timing.
#include <cstring>

#include "device/virtio/queue/queue.h"

namespace {

using namespace bulkhead;
using namespace bulkhead::device::virtio;

class NoFaultSink final : public FaultSink {
 public:
  void queue_fault(Fault) override {}
};

constexpr u64 kRam = 16 << 10;

// Follows the input; yields zeroes behind its end.
class Input {
 public:
  Input(const u8* data, std::size_t size) : data_{data}, left_{size} {}
  bool empty() const { return left_ == 0; }
  u8 byte() {
    if (left_ == 0) return 0;
    --left_;
    return *data_++;
  }
  u64 number(unsigned bytes) {
    u64 value = 0;
    while (bytes-- > 0) value = value << 8 | byte();
    return value;
  }

 private:
  const u8* data_;
  std::size_t left_;
};

void poke(Input& input, const GuestMemory& memory) {
  const Gpa at{input.number(2) % (kRam - 16)};
  const unsigned count = 1 + input.byte() % 16;
  for (unsigned i = 0; i < count; ++i) (void)memory.store(at + i, input.byte());
}

void use(Queue& queue, Chain chain, Input& input) {
  for (const IoBuffer& buffer : chain.writable()) std::memset(buffer.data, input.byte(), buffer.length);
  if (chain.readable_bytes() > 0) chain.skip(input.byte() % chain.readable_bytes());
  chain.take_last_writable();
  if (input.byte() % 8 == 0)
    queue.drop(std::move(chain));
  else
    queue.push(std::move(chain), static_cast<u32>(input.number(2)));
}

QueueConfig config(Input& input) {
  const u8 bits = input.byte();
  QueueConfig config{.size = u32(1) << (bits & 7)};
  if (bits & 8) config.size = static_cast<u32>(input.number(2));
  config.descriptors = Gpa{input.number(2) << (bits & 16 ? 4 : 0)};
  config.driver = Gpa{input.number(2)};
  config.device = Gpa{input.number(2)};
  config.packed = bits & 32;
  config.indirect = bits & 64;
  config.event_index = bits & 128;
  return config;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  static const GuestMemory memory = *GuestMemory::create({{Gpa{0}, kRam}});
  std::memset(memory.host(Gpa{0}, kRam), 0, kRam);
  NoFaultSink faults;
  Queue queue{memory, faults, 64, {.buffers = 64, .bytes = kRam}};
  std::vector<Chain> held;
  Input input{data, size};
  queue.enable(config(input));
  while (!input.empty()) {
    switch (input.byte() % 8) {
      case 0:
      case 1:
      case 2:
        poke(input, memory);
        break;
      case 3:
        if (auto chain = queue.pop()) held.push_back(std::move(*chain));
        break;
      case 4:
        if (held.empty()) break;
        std::swap(held.back(), held[input.byte() % held.size()]);
        use(queue, std::move(held.back()), input);
        held.pop_back();
        break;
      case 5:
        queue.interrupt_wanted();
        break;
      case 6:
        (void)queue.enable_notifications();
        break;
      default:
        queue.disable_notifications();
        break;
    }
  }
  for (Chain& chain : held) queue.drop(std::move(chain));
  return 0;
}
