// What an engine does without its caller, where it can: eventfds for writes and for interrupts, pages that are shown,
// the list of written pages; and hypercalls with interrupts past the LAPIC, which guest ABIs rest on.
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "base/fd.h"
#include "tests/engine/tiny_guest.h"

namespace bulkhead::engine {
namespace {

using Space = WritePlace::Space;

UniqueFd make_eventfd() { return UniqueFd{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)}; }
u64 count_of(const UniqueFd& events) {
  u64 count = 0;
  return ::read(events.get(), &count, sizeof count) == sizeof count ? count : 0;
}
void add_to(int fd) {
  const u64 one = 1;
  EXPECT_EQ(::write(fd, &one, sizeof one), static_cast<ssize_t>(sizeof one));
}

TEST_P(Conformance, WriteToDeviceMemorySignalsAnEventfd) {
  BH_CONFORMANCE_GUEST(guest);
  const UniqueFd events = make_eventfd();
  const auto registration =
      guest.partition().notify_on_write({.address = kMmioAt + 0x50, .size = 4, .value = 7}, events.get());
  ASSERT_TRUE(registration) << registration.error().message;
  guest.long_mode([](Code& c) {
    c.mov(c.edi, static_cast<u32>(kMmioAt + 0x50));
    for (int i = 0; i < 3; ++i) c.mov(c.dword[c.rdi], 7);
    c.mov(c.dword[c.rdi], 8);      // another value
    c.mov(c.word[c.rdi], 7);       // another size
    c.mov(c.eax, c.dword[c.rdi]);  // a read
    c.mov(c.dword[c.rdi + 4], 7);  // another place
    c.hlt();
  });
  EXPECT_EQ(guest.expect<MmioExit>().value, 8u);
  EXPECT_EQ(count_of(events), 3u);
  EXPECT_EQ(guest.expect<MmioExit>().size, 2);
  EXPECT_FALSE(guest.expect<MmioExit>().write);
  EXPECT_EQ(guest.expect<MmioExit>().address, Gpa{kMmioAt + 0x54});
  EXPECT_EQ(count_of(events), 0u);
}

TEST_P(Conformance, WriteToAPortSignalsAnEventfd) {
  BH_CONFORMANCE_GUEST(guest);
  const UniqueFd events = make_eventfd();
  auto registration =
      guest.partition().notify_on_write({.space = Space::kPort, .address = 0x60, .size = 1, .value = {}}, events.get());
  ASSERT_TRUE(registration) << registration.error().message;
  guest.long_mode([](Code& c) {
    Xbyak::Label loop;
    c.mov(c.eax, 5);
    c.out_(0x60, c.al);
    c.out_(0x60, c.al);
    emit_report(c);
    c.out_(0x60, c.al);
    c.hlt();
  });
  EXPECT_EQ(guest.report(), 5u);
  EXPECT_EQ(count_of(events), 2u);
  registration->reset();  // from now on it is an exit
  EXPECT_EQ(guest.expect<PortExit>().port, 0x60);
  EXPECT_EQ(count_of(events), 0u);
}

TEST_P(Conformance, EventfdInterruptsTheGuest) {
  BH_CONFORMANCE_GUEST(guest);
  auto registration = guest.partition().interrupt_on_event();
  ASSERT_TRUE(registration) << registration.error().message;
  guest.long_mode([&](Code& c) {
    emit_lapic_write(c, 0xf0, 0x1ff);
    c.mov(c.eax, 1);
    emit_report(c);
    emit_idle(guest, c, {{0x46, 0x46}, {0x47, 0x47}});
  });
  EXPECT_EQ(guest.report(), 1u);
  add_to((*registration)->descriptor());  // without a message: lost
  for (const u8 vector : {0x46, 0x47, 0x46}) {
    // An emulated one may still be about to look at the last signal.
    pollfd emptied{(*registration)->descriptor(), POLLIN, 0};
    for (int i = 0; i < 1000 && !guest.partition().registrations_are_cheap() && ::poll(&emptied, 1, 0) == 1; ++i)
      ::usleep(1000);
    (*registration)->set_message(Msi{0xfee00000, vector});
    add_to((*registration)->descriptor());
    EXPECT_EQ(guest.report(), vector);
  }
}

TEST_P(Conformance, ShownPageIsReadWithoutExits) {
  BH_CONFORMANCE_GUEST(guest);
  void* const page = ::mmap(nullptr, kPageSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(page, MAP_FAILED);
  if (!guest.partition().show_page(Gpa{kMmioAt}, static_cast<std::byte*>(page)))
    GTEST_SKIP() << GetParam().name << ": cannot show pages";
  static_cast<u32*>(page)[4] = 0x1234;
  guest.long_mode([](Code& c) {
    c.mov(c.edi, static_cast<u32>(kMmioAt));
    c.mov(c.dword[c.rdi + 16], 99);
    c.mov(c.eax, c.dword[c.rdi + 16]);
    emit_report(c);
  });
  EXPECT_EQ(guest.expect<MmioExit>().value, 99u);
  EXPECT_EQ(guest.report(), 0x1234u);
  EXPECT_EQ(static_cast<u32*>(page)[4], 0x1234u);
}

TEST_P(Conformance, WrittenPagesAreTold) {
  BH_CONFORMANCE_GUEST(guest);
  if (const auto on = guest.partition().track_writes(true); !on) GTEST_SKIP() << on.error().message;
  guest.long_mode([](Code& c) {
    c.mov(c.edi, static_cast<u32>(kSmallPages + 0x5000));
    c.mov(c.dword[c.rdi], 1);
    c.mov(c.dword[c.rdi + 0x3000], 1);
    c.mov(c.eax, 1);
    emit_report(c);
    c.mov(c.dword[c.rdi + 0x1000], 1);
    c.mov(c.eax, 2);
    emit_report(c);
    c.hlt();
  });
  const auto wrote = [](const Result<std::vector<u64>>& pages, u64 at) {
    return pages && std::ranges::binary_search(*pages, at / kPageSize);
  };
  EXPECT_EQ(guest.report(), 1u);
  const auto first = guest.partition().take_written();
  EXPECT_TRUE(wrote(first, kSmallPages + 0x5000) && wrote(first, kSmallPages + 0x8000));
  EXPECT_FALSE(wrote(first, kSmallPages + 0x6000));
  EXPECT_TRUE(guest.memory().store(Gpa{0x300000}, 1));  // by a device
  EXPECT_EQ(guest.report(), 2u);
  const auto second = guest.partition().take_written();
  EXPECT_TRUE(wrote(second, kSmallPages + 0x6000) && wrote(second, 0x300000));
  EXPECT_FALSE(wrote(second, kSmallPages + 0x5000));
  ASSERT_TRUE(guest.partition().track_writes(false));
  EXPECT_TRUE(guest.partition().take_written()->empty());
}

TEST_P(Conformance, HypercallCarriesItsRegisters) {
  BH_CONFORMANCE_GUEST(guest, 1, ParavirtAbi::kXen);
  const std::vector<u8> call = guest.partition().hypercall_code();
  ASSERT_LE(call.size(), 8u);
  guest.long_mode([&](Code& c) {
    c.mov(c.eax, 17);
    c.mov(c.edi, 1);
    c.mov(c.esi, 2);
    c.mov(c.edx, 3);
    c.mov(c.r10d, 4);
    c.mov(c.r8d, 5);
    c.mov(c.r9d, 6);
    for (const u8 byte : call) c.db(byte);
    c.mov(c.rbx, c.rax);
    c.mov(c.eax, c.edx);
    emit_report(c);
    c.hlt();
  });
  HypercallExit& exit = guest.expect<HypercallExit>();
  EXPECT_EQ(exit.number, 17u);
  EXPECT_EQ(exit.args, (std::array<u64, 6>{1, 2, 3, 4, 5, 6}));
  EXPECT_TRUE(exit.long_mode);
  u64 word = 0;
  EXPECT_TRUE(guest.memory().store(Gpa{kDataAt}, u64{0x5566}));
  EXPECT_TRUE(guest.vcpu().read_virtual(Gva{kDataAt}, std::as_writable_bytes(std::span{&word, 1})));
  EXPECT_EQ(word, 0x5566u);
  EXPECT_FALSE(guest.vcpu().read_virtual(Gva{u64{1} << 40}, std::as_writable_bytes(std::span{&word, 1})));
  exit.result = 0x123456789abc;
  EXPECT_EQ(guest.report(), 3u);
  EXPECT_EQ(guest.vcpu().state().gpr[3], 0x123456789abcu);
}

TEST_P(Conformance, DirectInterruptWaitsForTheFlagAlone) {
  BH_CONFORMANCE_GUEST(guest);
  guest.long_mode([&](Code& c) {
    c.mov(c.eax, 1);
    emit_report(c);  // with interrupts off
    c.mov(c.eax, 2);
    emit_report(c);
    c.sti();
    Xbyak::Label loop;
    c.L(loop);
    c.pause();
    c.jmp(loop);
    guest.set_gate(0x48, guest.here(c));
    c.mov(c.eax, 3);
    emit_report(c);
    emit_iret(c);
  });
  EXPECT_EQ(guest.report(), 1u);
  guest.partition().inject_direct(0, 0x48);
  EXPECT_EQ(guest.report(), 2u);
  EXPECT_EQ(guest.report(), 3u);
  guest.partition().inject_direct(0, 0x48);  // no EOI was owed
  EXPECT_EQ(guest.report(), 3u);
}

}  // namespace
}  // namespace bulkhead::engine
