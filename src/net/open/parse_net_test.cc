#include <gtest/gtest.h>

#include "net/open/net_config.h"

namespace bulkhead::net {
namespace {

using Kind = NetConfig::Kind;

std::string error(const std::string& text) {
  const auto config = parse_net(text);
  EXPECT_FALSE(config.has_value()) << text;
  return config ? "" : config.error().message;
}

TEST(ParseNet, Kinds) {
  EXPECT_EQ(parse_net("none")->kind, Kind::kNone);
  EXPECT_EQ(parse_net("user")->kind, Kind::kUser);
  EXPECT_EQ(parse_net("tap=tap0")->kind, Kind::kTap);
  EXPECT_EQ(parse_net("bridge=br-0")->name, "br-0");
  EXPECT_EQ(parse_net("socket=/run/a b.sock")->name, "/run/a b.sock");
}

TEST(ParseNet, Options) {
  const NetConfig all = *parse_net(
      "tap=t,mac=02:00:00:00:00:0a,mtu=9000,queues=4,netns=blue,ip=192.0.2.7/24,ip=2001:db8::7/64,gateway=192.0.2.1,"
      "dns=192.0.2.2,out-bytes=10M,in-packets=500");
  EXPECT_EQ(text_of(all.mac), "02:00:00:00:00:0a");
  EXPECT_EQ(all.mtu, 9000);
  EXPECT_EQ(all.queues, 4u);
  EXPECT_EQ(all.netns, "blue");
  EXPECT_EQ(all.addresses, (std::vector<std::string>{"192.0.2.7/24", "2001:db8::7/64"}));
  EXPECT_EQ(all.gateways, std::vector<std::string>{"192.0.2.1"});
  EXPECT_EQ(all.out.bytes.per_second, 10_MiB);
  EXPECT_EQ(all.in.packets.per_second, 500u);
  EXPECT_EQ(all.in.bytes.per_second, 0u);
  EXPECT_EQ(parse_net("bridge=b,ip=dhcp")->how, NetConfig::Addresses::kDhcp);
  EXPECT_FALSE(parse_net("user,ipv6=off")->user.ipv6);
  EXPECT_TRUE(parse_net("user,host-loopback=on")->user.host_loopback);
}

TEST(ParseNet, ErrorsAreOneLineAndNameTheThing) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "none of none, user"},
      {"wifi", "'wifi'"},
      {"user=x", "takes no name"},
      {"tap", "name of a network device"},
      {"tap=", "name of a network device"},
      {"tap=a/b", "'a/b'"},
      {"tap=..", "'..'"},
      {"bridge=abcdefghijklmnop", "name of a network device"},
      {"socket=", "path"},
      {"user,", "''"},
      {"user,speed=1", "'speed'"},
      {"user,mtu", "needs a value"},
      {"user,mtu=67", "68"},
      {"user,mtu=65522", "65521"},
      {"user,mtu=-1", "'-1'"},
      {"user,mtu=1500x", "'1500x'"},
      {"user,queues=0", "1 to 8"},
      {"user,netns=x", "'netns'"},
      {"tap=t,netns=", "empty"},
      {"tap=t,host-loopback=on", "'host-loopback'"},
      {"user,ipv6=no", "neither on nor off"},
      {"tap=t,mac=01:00:00:00:00:01", "one station"},
      {"tap=t,mac=00:00:00:00:00:00", "one station"},
      {"tap=t,mac=2:0:0:0:0:1", "MAC address"},
      {"tap=t,mac=02:00:00:00:00:0g", "MAC address"},
      {"tap=t,ip=192.0.2.1", "like 192.0.2.7/24"},
      {"tap=t,ip=192.0.2.1/33", "1 to 32"},
      {"tap=t,ip=2001:db8::1/129", "1 to 128"},
      {"tap=t,ip=dhcp,ip=192.0.2.1/24", "do not go with"},
      {"tap=t,gateway=here", "'here'"},
      {"tap=t,out-bytes=lots", "'lots'"},
      {"none,mtu=1500", "'mtu'"},
      {"user,vhost=on", "'vhost'"},
      {"tap=t,vhost=yes", "none of on, off, auto"},
      {"tap=t,vhost=on,in-packets=9", "knows no limits"},
  };
  for (const auto& [text, said] : cases) {
    const std::string message = error(text);
    EXPECT_TRUE(message.contains(said)) << text << ": " << message << " should say " << said;
    EXPECT_FALSE(message.contains('\n'));
  }
}

TEST(ParseNet, WhoCarriesTheFrames) {
  EXPECT_EQ(parse_net("tap=t")->vhost, NetConfig::InKernel::kAuto);
  EXPECT_EQ(parse_net("bridge=b,vhost=on")->vhost, NetConfig::InKernel::kOn);
  EXPECT_EQ(parse_net("tap=t,vhost=off,in-packets=9")->vhost, NetConfig::InKernel::kOff);
}

TEST(ParsePort, Forms) {
  const PublishedPort plain = *parse_port("8080:80");
  EXPECT_EQ(plain.host, 8080);
  EXPECT_EQ(plain.guest, 80);
  EXPECT_FALSE(plain.udp);
  EXPECT_EQ(plain.address, "");
  EXPECT_TRUE(parse_port("53:53/udp")->udp);
  EXPECT_FALSE(parse_port("53:53/tcp")->udp);
  EXPECT_EQ(parse_port("127.0.0.1:1:2")->address, "127.0.0.1");
  EXPECT_EQ(parse_port("[::1]:1:2")->address, "::1");
  for (const char* const bad : {"", "80", ":", "0:80", "80:0", "65536:1", "1:2/sctp", "a:1:2", "1:2:3:4", "80:80 "})
    EXPECT_FALSE(parse_port(bad).has_value()) << bad;
}

TEST(ForAgent, SaysWhatWasOpened) {
  Network network;
  network.config = *parse_net("tap=t,mac=02:00:00:00:00:0a,mtu=9000,ip=192.0.2.7/24,gateway=192.0.2.1,dns=192.0.2.2");
  EXPECT_EQ(network.for_agent(), "mac=02:00:00:00:00:0a mtu=9000 ip=192.0.2.7/24 gw=192.0.2.1 dns=192.0.2.2");
  network.config = *parse_net("tap=t,mac=02:00:00:00:00:0a,ip=dhcp");
  EXPECT_EQ(network.for_agent(), "mac=02:00:00:00:00:0a mtu=0 dhcp=1");
}

}  // namespace
}  // namespace bulkhead::net
