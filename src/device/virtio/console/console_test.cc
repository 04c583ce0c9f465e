#include "device/virtio/console/console.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <thread>

#include "device/virtio/mmio/mmio.h"
#include "support/hostile_guest.h"

namespace bulkhead::device::virtio {
namespace {

using namespace spec::virtio;
using namespace spec::virtio::console;
using test::RingOptions;

// A backend that takes as much as it is allowed to and says what the test gave it. Calls back from within its callers.
class ScriptedBackend final : public ConsoleBackend {
 public:
  std::size_t write(std::span<const std::byte> data) override {
    const std::size_t count = std::min(data.size(), room);
    room -= count;
    if (keep) got.append(reinterpret_cast<const char*>(data.data()), count);
    total += count;
    return count;
  }
  std::size_t read(std::span<std::byte> out) override {
    const std::size_t count = std::min(out.size(), to_say.size() - said);
    std::memcpy(out.data(), to_say.data() + said, count);
    said += count;
    return count;
  }
  void set_callbacks(std::function<void()> r, std::function<void()> w) override {
    readable = std::move(r);
    writable = std::move(w);
  }
  void guest_open(bool open) override { opens += open ? "o" : "c"; }
  void say(std::string_view text) {
    to_say += text;
    readable();
  }
  void allow(std::size_t bytes) {
    room = bytes;
    writable();
  }
  std::string got, to_say, opens;
  std::size_t room = ~std::size_t{0}, said = 0;
  u64 total = 0;
  bool keep = true;
  std::function<void()> readable, writable;
};

class ConsoleTest : public ::testing::TestWithParam<RingOptions> {
 protected:
  ScriptedBackend a_, b_;
  GuestMemory memory_ = *GuestMemory::create_pc(16_MiB);
  test::RecordingIrq irq_;

  struct Rig {
    Rig(std::vector<ConsolePortSpec> ports, const GuestMemory& memory, IrqLine& irq)
        : core{std::move(ports)}, console{core}, mmio{console, memory, irq}, guest{mmio, memory} {}
    bool up(RingOptions rings, u64 features) {
      return guest.bring_up(features, rings, static_cast<unsigned>(console.queue_sizes().size()), 16);
    }
    void control(u32 id, u16 event, u16 value) {
      const Control message{id, event, value};
      guest.queue(3).add({{guest.put({reinterpret_cast<const char*>(&message), sizeof message}), 8, false}});
      guest.kick(3);
      while (guest.queue(3).poll()) continue;
    }
    // Gives the device a buffer of 64 bytes on the control queue; what it wrote there, or "" if nothing now.
    std::string hear() {
      if (!listening) listening = guest.allocate(64);
      if (guest.queue(2).in_flight() == 0) {
        guest.queue(2).add({{*listening, 64, true}});
        guest.kick(2);
      }
      const auto used = guest.queue(2).poll();
      return used ? guest.get(*listening, used->length) : "";
    }
    void transmit(unsigned queue, std::string_view text) {
      guest.queue(queue).add({{guest.put(text), static_cast<u32>(text.size()), false}});
      guest.kick(queue);
    }
    ConsoleCore core;
    VirtioConsole console;
    VirtioMmio mmio;
    test::VirtioGuest guest;
    std::optional<Gpa> listening;
  };
};

std::string message(u32 id, u16 event, u16 value, std::string tail = "") {
  const Control control{id, event, value};
  return std::string(reinterpret_cast<const char*>(&control), sizeof control) + tail;
}

INSTANTIATE_TEST_SUITE_P(Rings, ConsoleTest,
                         ::testing::Values(RingOptions{false, false, false}, RingOptions{false, true, true},
                                           RingOptions{true, false, false}, RingOptions{true, true, true}));

TEST_P(ConsoleTest, SinglePortBothWays) {
  Rig rig{{{"", &a_, true}}, memory_, irq_};
  EXPECT_FALSE(rig.guest.offered_features() & kFeatureMultiport);
  ASSERT_TRUE(rig.up(GetParam(), ~kFeaturePacked & 7));
  EXPECT_EQ(a_.opens, "o");
  rig.transmit(1, "hello");
  EXPECT_EQ(a_.got, "hello");
  EXPECT_EQ(rig.guest.queue(1).poll()->length, 0u);
  const Gpa in = rig.guest.allocate(100);
  rig.guest.queue(0).add({{in, 2, true}, {in + 2, 98, true}});
  rig.guest.kick(0);
  EXPECT_FALSE(rig.guest.queue(0).poll());
  rig.guest.queue(0).request_interrupt();
  a_.say("input");
  EXPECT_EQ(rig.guest.queue(0).poll()->length, 5u);
  EXPECT_EQ(rig.guest.get(in, 5), "input");
  EXPECT_TRUE(irq_.level());
  rig.guest.write(0x70, 0);
  EXPECT_EQ(a_.opens, "oc");
}

TEST_P(ConsoleTest, SlowBackendLosesNothing) {
  Rig rig{{{"", &a_, true}}, memory_, irq_};
  ASSERT_TRUE(rig.up(GetParam(), 0));
  a_.room = 3;
  rig.transmit(1, "hello");
  rig.transmit(1, " world");
  EXPECT_EQ(a_.got, "hel");
  EXPECT_FALSE(rig.guest.queue(1).poll()) << "the buffer stays with us";
  for (int i = 0; i < 8; ++i) a_.allow(1);
  EXPECT_EQ(a_.got, "hello world");
  EXPECT_TRUE(rig.guest.queue(1).poll() && rig.guest.queue(1).poll());
  a_.allow(100);
  rig.transmit(1, "!");
  EXPECT_EQ(a_.got, "hello world!");
}

TEST_P(ConsoleTest, InputWaitsForBuffers) {
  Rig rig{{{"", &a_, true}}, memory_, irq_};
  ASSERT_TRUE(rig.up(GetParam(), 0));
  a_.say(std::string(100, 'i'));
  const Gpa in = rig.guest.allocate(64);
  std::string all;
  for (int i = 0; i < 10; ++i) {
    rig.guest.queue(0).add({{in, 10, true}});
    rig.guest.kick(0);
    const auto used = rig.guest.queue(0).poll();
    ASSERT_TRUE(used);
    all += rig.guest.get(in, used->length);
  }
  EXPECT_EQ(all, std::string(100, 'i'));
}

TEST_P(ConsoleTest, MultiportHandshake) {
  Rig rig{{{"", &a_, true}, {"org.bulkhead.agent", &b_, false}}, memory_, irq_};
  rig.core.resize({100, 40});
  ASSERT_TRUE(rig.up(GetParam(), 3));
  EXPECT_EQ(rig.mmio.read(0x104, AccessSize::k4).value, 2u);
  EXPECT_EQ(rig.hear(), "");
  rig.control(0, kDeviceReady, 1);
  EXPECT_EQ(rig.hear(), message(0, kDeviceAdd, 1));
  EXPECT_EQ(rig.hear(), message(1, kDeviceAdd, 1));
  rig.control(0, kPortReady, 1);
  EXPECT_EQ(rig.hear(), message(0, kConsolePort, 1));
  EXPECT_EQ(rig.hear(), message(0, kPortOpen, 1));
  EXPECT_EQ(rig.hear(), message(0, kResize, 1, std::string("\x64\0\x28\0", 4)));
  rig.control(1, kPortReady, 1);
  EXPECT_EQ(rig.hear(), message(1, kPortName, 1, "org.bulkhead.agent"));
  EXPECT_EQ(rig.hear(), message(1, kPortOpen, 1));
  EXPECT_EQ(rig.hear(), "");
  rig.core.resize({80, 24});
  EXPECT_EQ(rig.hear(), message(0, kResize, 1, std::string("\x50\0\x18\0", 4)));
  rig.core.set_host_open(1, false);
  EXPECT_EQ(rig.hear(), message(1, kPortOpen, 0));
  EXPECT_EQ(rig.console.ignored_control_messages(), 0u);
}

TEST_P(ConsoleTest, InputWaitsForTheGuestToOpen) {
  Rig rig{{{"a", &a_, false}, {"b", &b_, false}}, memory_, irq_};
  ASSERT_TRUE(rig.up(GetParam(), 3));
  const Gpa in = rig.guest.allocate(64);
  rig.guest.queue(4).add({{in, 64, true}});
  rig.guest.kick(4);
  b_.say("early");
  EXPECT_FALSE(rig.guest.queue(4).poll()) << "a driver would throw it away";
  rig.control(1, kPortOpen, 1);
  EXPECT_EQ(b_.opens, "o");
  ASSERT_TRUE(rig.guest.queue(4).poll());
  EXPECT_EQ(rig.guest.get(in, 5), "early");
  EXPECT_EQ(a_.opens, "");
}

TEST_P(ConsoleTest, CloseComesAfterTheLastByte) {
  Rig rig{{{"a", &a_, false}, {"b", &b_, false}}, memory_, irq_};
  ASSERT_TRUE(rig.up(GetParam(), 3));
  rig.control(1, kPortOpen, 1);
  b_.room = 2;
  rig.transmit(5, "last words");
  rig.control(1, kPortOpen, 0);
  EXPECT_EQ(b_.opens, "o");
  b_.allow(100);
  EXPECT_EQ(b_.got, "last words");
  EXPECT_EQ(b_.opens, "oc");
  rig.control(1, kPortOpen, 1);
  EXPECT_EQ(b_.opens, "oco");
}

TEST_P(ConsoleTest, ManyBytesBothWays) {
  constexpr u64 kTotal = 100_MiB;
  Rig rig{{{"", &a_, true}}, memory_, irq_};
  ASSERT_TRUE(rig.up(GetParam(), 0));
  a_.keep = false;
  const Gpa out = rig.guest.put(std::string(32 << 10, 'o'));
  for (u64 sent = 0; sent < kTotal;) {
    while (rig.guest.queue(1).add({{out, 32 << 10, false}})) sent += 32 << 10;
    rig.guest.kick(1);
    while (rig.guest.queue(1).poll()) continue;
  }
  EXPECT_GE(a_.total, kTotal);
  a_.to_say.assign(kTotal, 'x');
  for (std::size_t i = 0; i < kTotal; i += 997) a_.to_say[i] = static_cast<char>(i >> 8);
  a_.readable();
  const Gpa in = rig.guest.allocate(16 * 4096);
  std::vector<Gpa> of_token(16);
  u64 heard = 0, next_buffer = 0;
  while (heard < kTotal) {
    for (int i = 0; i < 16; ++i) {
      const Gpa at = in + 4096 * (next_buffer++ % 16);
      of_token[*rig.guest.queue(0).add({{at, 4096, true}})] = at;
    }
    rig.guest.kick(0);
    while (const auto used = rig.guest.queue(0).poll()) {
      const std::byte* const host = memory_.host(of_token[used->token], 4096);
      ASSERT_EQ(std::memcmp(host, a_.to_say.data() + heard, used->length), 0) << heard;
      heard += used->length;
    }
  }
  EXPECT_EQ(heard, kTotal);
}

TEST_P(ConsoleTest, BackendThreadsAndVcpusTogether) {
  // Echo through a backend whose far end is another thread, with little room on either side.
  struct Pipe final : ConsoleBackend {
    std::size_t write(std::span<const std::byte> data) override {
      const std::lock_guard lock{mutex};
      const std::size_t count = std::min<std::size_t>(data.size(), 1000 - in.size());
      in.append(reinterpret_cast<const char*>(data.data()), count);
      return count;
    }
    std::size_t read(std::span<std::byte> data) override {
      const std::lock_guard lock{mutex};
      const std::size_t count = std::min(data.size(), out.size());
      std::memcpy(data.data(), out.data(), count);
      out.erase(0, count);
      return count;
    }
    void set_callbacks(std::function<void()> r, std::function<void()> w) override { readable = r, writable = w; }
    std::mutex mutex;
    std::string in, out;
    std::function<void()> readable, writable;
  } pipe;
  Rig rig{{{"", &pipe, true}}, memory_, irq_};
  ASSERT_TRUE(rig.up(GetParam(), 0));
  std::atomic<bool> stop{false};
  std::thread far_end{[&] {
    while (!stop) {
      {
        const std::lock_guard lock{pipe.mutex};
        if (pipe.out.size() < 5000) pipe.out += std::exchange(pipe.in, "");
      }
      pipe.readable();
      pipe.writable();
      std::this_thread::yield();
    }
  }};
  constexpr u64 kTotal = 300000;
  std::string sent, heard;
  const Gpa out = rig.guest.allocate(700), in = rig.guest.allocate(512);
  while (heard.size() < kTotal) {
    if (sent.size() < kTotal && rig.guest.queue(1).in_flight() == 0) {
      std::string text(700, '\0');
      for (char& c : text) c = static_cast<char>(sent.size() * 7 + (&c - text.data()) * 13);
      sent += text;
      ASSERT_TRUE(memory_.write(out, std::as_bytes(std::span{text})));
      rig.guest.queue(1).add({{out, 700, false}});
      rig.guest.kick(1);
    }
    if (rig.guest.queue(0).in_flight() == 0) {
      rig.guest.queue(0).add({{in, 512, true}});
      rig.guest.kick(0);
    }
    rig.guest.queue(1).poll();
    if (const auto used = rig.guest.queue(0).poll()) heard += rig.guest.get(in, used->length);
    std::this_thread::yield();
  }
  rig.guest.write(0x70, 0);
  stop = true;
  far_end.join();
  EXPECT_EQ(heard, sent.substr(0, heard.size()));
}

TEST_F(ConsoleTest, SizeInConfigurationSpace) {
  Rig rig{{{"", &a_, true}}, memory_, irq_};
  ASSERT_TRUE(rig.up({}, 1));
  rig.guest.write(0x64, 3);
  const u32 before = rig.guest.read(0xfc);
  rig.core.resize({132, 43});
  EXPECT_EQ(rig.mmio.read(0x100, AccessSize::k4).value, 132u | 43u << 16);
  EXPECT_NE(rig.guest.read(0xfc), before);
  EXPECT_EQ(rig.guest.read(0x60), 2u);
}

TEST_F(ConsoleTest, EmergencyWriteNeedsNoDriver) {
  Rig rig{{{"", &a_, true}}, memory_, irq_};
  for (const char c : std::string_view{"panic"}) rig.mmio.write(0x108, static_cast<u8>(c), AccessSize::k4);
  EXPECT_EQ(a_.got, "panic");
  a_.room = 0;
  for (int i = 0; i < 5000; ++i) rig.mmio.write(0x108, 'x', AccessSize::k1);
  a_.allow(~std::size_t{0});
  EXPECT_EQ(a_.got.size(), 5u + ConsoleCore::kEmergencyBytes);
  EXPECT_EQ(rig.core.counters()[ConsoleCore::kEmergencyDropped].value(), 5000 - ConsoleCore::kEmergencyBytes);
}

TEST_F(ConsoleTest, CallbackAfterTheDeviceIsGoneIsHarmless) {
  {
    Rig rig{{{"", &a_, true}}, memory_, irq_};
  }
  a_.readable();
  a_.writable();
}

TEST_F(ConsoleTest, PortWithoutBackendSwallows) {
  Rig rig{{{"", nullptr, true}}, memory_, irq_};
  ASSERT_TRUE(rig.up({}, 0));
  rig.transmit(1, "nobody hears");
  EXPECT_TRUE(rig.guest.queue(1).poll());
}

// Bad guests.

TEST_F(ConsoleTest, ControlMessagesThatMakeNoSense) {
  Rig rig{{{"a", &a_, false}, {"b", &b_, false}}, memory_, irq_};
  ASSERT_TRUE(rig.up({}, 3));
  rig.control(2, kPortReady, 1);
  rig.control(0xffffffff, kPortOpen, 1);
  rig.control(0, 99, 1);
  rig.control(0, kPortReady, 0);
  EXPECT_EQ(rig.console.ignored_control_messages(), 4u);
  EXPECT_FALSE(rig.guest.needs_reset());
  rig.transmit(3, "short");
  EXPECT_TRUE(rig.guest.needs_reset());
  EXPECT_EQ(rig.mmio.session().faults(Fault::kBadRequest), 1u);
}

TEST_F(ConsoleTest, ControlFloodWithoutListening) {
  Rig rig{{{"a", &a_, false}, {"b", &b_, false}}, memory_, irq_};
  ASSERT_TRUE(rig.up({}, 3));
  for (int i = 0; i < 10000; ++i) rig.control(0, i % 2 ? kDeviceReady : kPortReady, 1);
  EXPECT_EQ(rig.hear(), message(0, kDeviceAdd, 1));
  EXPECT_EQ(rig.hear(), message(0, kPortName, 1, "a"));
  EXPECT_EQ(rig.hear(), message(0, kPortOpen, 1));
  EXPECT_EQ(rig.hear(), message(1, kDeviceAdd, 1));
  EXPECT_EQ(rig.hear(), "");
}

TEST_F(ConsoleTest, ControlBufferTooSmall) {
  Rig rig{{{"a", &a_, false}, {"b", &b_, false}}, memory_, irq_};
  ASSERT_TRUE(rig.up({}, 3));
  rig.guest.queue(2).add({{rig.guest.allocate(7), 7, true}});
  rig.control(0, kDeviceReady, 1);
  EXPECT_TRUE(rig.guest.needs_reset());
}

TEST_F(ConsoleTest, BuffersOfTheWrongDirection) {
  Rig rig{{{"", &a_, true}}, memory_, irq_};
  ASSERT_TRUE(rig.up({}, 0));
  a_.say("input");
  rig.transmit(0, "readable in the receive queue");
  EXPECT_EQ(rig.guest.queue(0).poll()->length, 0u);
  rig.guest.queue(1).add({{rig.guest.allocate(10), 10, true}});
  rig.guest.kick(1);
  EXPECT_EQ(rig.guest.queue(1).poll()->length, 0u);
  EXPECT_EQ(a_.got, "");
}

TEST_F(ConsoleTest, ResetWhileBuffersAreHeld) {
  Rig rig{{{"", &a_, true}}, memory_, irq_};
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(rig.up({true, true, true}, 0));
    a_.room = 1;
    rig.transmit(1, "hello");
    rig.guest.queue(0).add({{rig.guest.allocate(10), 10, true}});
    rig.guest.kick(0);
    rig.guest.write(0x70, 0);
    a_.allow(100);
  }
  EXPECT_EQ(a_.got, "hhh");
}

TEST_F(ConsoleTest, HostileGuestSurvivedAndWorksAfterwards) {
  Rig rig{{{"", &a_, true}, {"b", &b_, false}, {"none", nullptr, false}}, memory_, irq_};
  a_.keep = b_.keep = false;
  std::atomic<bool> stop{false};
  std::thread backend{[&] {
    while (!stop) {
      a_.readable();
      b_.writable();
      rig.core.resize({1, 1});
      std::this_thread::yield();
    }
  }};
  const auto queues = static_cast<unsigned>(rig.console.queue_sizes().size());
  for (u64 seed = 0; seed < 3; ++seed) {
    test::HostileGuest hostile{rig.mmio, memory_, seed};
    hostile.touch_registers(20000, queues);
    hostile.corrupt_rings(300, queues, 3);
  }
  stop = true;
  backend.join();
  test::VirtioGuest guest{rig.mmio, memory_};
  ASSERT_TRUE(guest.bring_up(0, {true, true, true}, queues, 16));
  a_.keep = true;
  a_.got.clear();
  guest.queue(1).add({{guest.put("alive"), 5, false}});
  guest.kick(1);
  EXPECT_EQ(a_.got, "alive");
}

}  // namespace
}  // namespace bulkhead::device::virtio
