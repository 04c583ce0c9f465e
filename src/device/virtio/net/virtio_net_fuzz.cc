// A guest made of bytes against the whole network device: registers, rings, descriptors, control commands, and what
// comes from the packet end meanwhile. The pairs' threads are the real ones.
#include <cstring>

#include "device/virtio/mmio/mmio.h"
#include "device/virtio/net/net.h"
#include "net/testing/memory_end.h"
#include "support/virtio_guest.h"

namespace {

using namespace bulkhead;
using namespace bulkhead::device;
using namespace bulkhead::device::virtio;
using bulkhead::net::FrameHeader;

constexpr u64 kRam = 1_MiB, kBuffers = 512_KiB;  // buffers lie behind rings
constexpr unsigned kPairs = 2, kQueues = 2 * kPairs + 1;
constexpr u16 kEntries = 16;  // nobody takes them back before the next start

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : data_{data}, left_{size} {}
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
  std::string text(std::size_t size) {
    std::string out(size, '\0');
    for (char& one : out) one = static_cast<char>(byte());
    return out;
  }

 private:
  const std::uint8_t* data_;
  std::size_t left_;
};

NetSettings settings() {
  NetSettings all;
  all.mac = {2, 0, 0, 0, 0, 7};
  all.queues = kPairs;
  return all;
}

class Guest {
 public:
  Guest(const GuestMemory& memory, Input& input) : memory_{memory}, input_{input} { start(~u64{0}); }
  ~Guest() { mmio_.write(0x70, 0, AccessSize::k4); }

  void act() {
    const u8 what = input_.byte();
    const unsigned queue = what / 8 % kQueues;
    switch (what % 8) {
      case 0:
        mmio_.write(input_.byte() % 0x48 * 4, input_.number(what & 128 ? 4 : 1), AccessSize::k4);
        tainted_ = true;  // the rings may be other ones now
        break;
      case 1:
        offer(queue);
        break;
      case 2:
        mmio_.write(0x50, queue, AccessSize::k4);
        break;
      case 3:
        command();
        break;
      case 4:
        end_.queues[queue % kPairs].put(input_.text(input_.number(1) * (what & 128 ? 8 : 1)), header());
        break;
      case 5:
        mmio_.read(input_.byte() * 2, AccessSize::k4);
        break;
      case 6:
        if (++starts_ < 4) start(input_.number(8));
        break;
      default:
        scribble(queue);
        break;
    }
  }

 private:
  void start(u64 features) {
    driver_.emplace(mmio_, memory_, Gpa{0x10000 + 0x1c000 * u64{starts_}});
    const u8 rings = input_.byte();
    tainted_ = !driver_->bring_up(features, {(rings & 1) != 0, (rings & 2) != 0, (rings & 4) != 0}, kQueues, kEntries);
  }
  FrameHeader header() {
    FrameHeader out;
    const std::string bytes = input_.text(sizeof out);
    std::memcpy(static_cast<void*>(&out), bytes.data(), sizeof out);
    return out;
  }
  // Mostly where buffers are.
  Gpa address() {
    const u64 low = input_.number(2);
    return Gpa{low % 16 == 15 ? low << 8 : kBuffers + low * 4};
  }
  void fill(Gpa at) {
    const std::string bytes = input_.text(input_.byte() % 80);
    for (std::size_t i = 0; i < bytes.size(); ++i) (void)memory_.store(at + i, static_cast<u8>(bytes[i]));
  }
  void offer(unsigned queue) {
    if (tainted_) return;
    test::DriverBuffer buffers[4];
    const unsigned count = 1 + input_.byte() % 4;
    for (unsigned i = 0; i < count; ++i) {
      const u8 kind = input_.byte();
      buffers[i] = {address(), static_cast<u32>(input_.number(kind & 2 ? 2 : 1)), (kind & 1) != 0};
      fill(buffers[i].at);
    }
    driver_->queue(queue).add(std::span{buffers, count});
  }
  void command() {
    if (tainted_) return;
    const Gpa head{kBuffers}, body{kBuffers + 16}, status{kBuffers + 8};
    const u32 size = input_.byte();
    for (u64 i = 0; i < 2 + size; ++i) (void)memory_.store(i < 2 ? head + i : body + (i - 2), input_.byte());
    driver_->queue(kQueues - 1).add({{head, 2, false}, {body, size, false}, {status, 1, true}});
    mmio_.write(0x50, kQueues - 1, AccessSize::k4);
  }
  void scribble(unsigned queue) {
    tainted_ = true;
    (void)memory_.store(Gpa{0x10000 + input_.number(3) % (kBuffers - 0x10000)}, input_.byte());
    mmio_.write(0x50, queue, AccessSize::k4);
  }

  const GuestMemory& memory_;
  Input& input_;
  net::testing::MemoryEnd end_{kPairs};
  NetCore core_{end_, settings()};
  VirtioNet net_{core_};
  test::RecordingIrq irq_;
  VirtioMmio mmio_{net_, memory_, irq_};
  std::optional<test::VirtioGuest> driver_;
  unsigned starts_ = 0;
  bool tainted_ = false;  // what the driver's half believes of its rings is not so any more
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const GuestMemory memory = *GuestMemory::create({{Gpa{0}, kRam}});
  std::memset(memory.host(Gpa{0}, kRam), 0, kRam);
  Input input{data, size};
  Guest guest{memory, input};
  for (unsigned i = 0; i < 300 && !input.empty(); ++i) guest.act();
  return 0;
}
