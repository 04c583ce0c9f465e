#include "zone/session/console_hub.h"

#include <gtest/gtest.h>

namespace bulkhead::zone {
namespace {

std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span{text}); }

class ConsoleHubTest : public ::testing::Test {
 protected:
  static std::string read(device::ConsoleBackend& end) {
    std::byte out[64];
    return {reinterpret_cast<const char*>(out), end.read(out)};
  }
  Wake wake_;
  ConsoleLog log_{wake_};
  ConsoleHub hub_{wake_, log_};
};

TEST_F(ConsoleHubTest, InputGoesToWhoSpokeLast) {
  hub_.put_input(bytes("a"));
  EXPECT_EQ(read(hub_.hvc()), "");
  EXPECT_EQ(read(hub_.uart()), "a");
  EXPECT_EQ(hub_.hvc().write(bytes("login: ")), 7u);
  hub_.put_input(bytes("b"));
  EXPECT_EQ(read(hub_.uart()), "");
  EXPECT_EQ(read(hub_.hvc()), "b");
  EXPECT_EQ(hub_.output(), "login: ");
}

TEST_F(ConsoleHubTest, FullOutputIsRefusedThenOfferedAgain) {
  int writable = 0;
  hub_.uart().set_callbacks([] {}, [&] { ++writable; });
  const std::string much(2 * ConsoleHub::kRoom, 'x');
  EXPECT_EQ(hub_.uart().write(bytes(much)), ConsoleHub::kRoom);
  EXPECT_EQ(hub_.uart().write(bytes("x")), 0u);
  hub_.consume_output(10);
  EXPECT_EQ(writable, 1);
  EXPECT_EQ(hub_.uart().write(bytes("y")), 1u);
  hub_.consume_output(1);
  EXPECT_EQ(writable, 1);
}

TEST_F(ConsoleHubTest, DroppedOutputNeverFills) {
  hub_.drop_output();
  EXPECT_EQ(hub_.uart().write(bytes(std::string(3 * ConsoleHub::kRoom, 'x'))), 3 * ConsoleHub::kRoom);
  EXPECT_EQ(hub_.output(), "");
}

TEST_F(ConsoleHubTest, DetachedCallbacksStaySilent) {
  int calls = 0;
  hub_.uart().set_callbacks([&] { ++calls; }, [&] { ++calls; });
  hub_.detach();
  hub_.put_input(bytes("x"));
  hub_.consume_output(0);
  EXPECT_EQ(calls, 0);
}

}  // namespace
}  // namespace bulkhead::zone
