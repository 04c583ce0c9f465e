#include <arpa/inet.h>

#include <charconv>
#include <filesystem>
#include <fstream>

#include "control/commands.h"
#include "net/open/lease.h"
#include "net/tap/device.h"

namespace bulkhead::control {
namespace {

namespace fs = std::filesystem;

// The bridge's address and the network around it, from "10.88.0.1/24".
Result<net::Address4> parse_subnet(const std::string& text) {
  const std::size_t slash = text.find('/');
  in_addr address{};
  net::Address4 own;
  const bool good = slash != std::string::npos && ::inet_pton(AF_INET, text.substr(0, slash).c_str(), &address) == 1;
  const auto [end, error] =
      std::from_chars(text.data() + std::min(slash + 1, text.size()), text.data() + text.size(), own.prefix);
  own.address = ntohl(address.s_addr);
  if (!good || error != std::errc{} || end != text.data() + text.size() || own.prefix < 8 || own.prefix > 30)
    return fail("--subnet {}: it must be the bridge's own address and a prefix length of 8 to 30, as in 10.88.0.1/24",
                text);
  if ((own.address & ~(~u32{0} << (32 - own.prefix))) == 0)
    return fail("--subnet {}: that is the network's address; the bridge needs one in it, as in 10.88.0.1/24", text);
  return own;
}

std::string table_of(const std::string& name) { return fmt::format("bulkhead_{}", name); }

// nft knows letters, digits and a few more; so do sensible people who name bridges.
Result<void> check_name(const std::string& name) {
  const bool good = !name.empty() && name.size() < 16 && std::isalpha(static_cast<unsigned char>(name[0])) != 0 &&
                    std::ranges::all_of(name, [](unsigned char c) { return std::isalnum(c) != 0 || c == '_'; });
  if (!good) return fail("'{}' is no name for a bridge: 1 to 15 letters, digits and _, a letter first", name);
  return {};
}

Result<void> run_nft(const std::string& script, zone::Workshop& workshop) {
  BH_TRY(zone::run_tool({.command = {"nft", script}, .package = "nftables"}, workshop));
  return {};
}

std::string rules(const std::string& name, const net::Address4& own) {
  const u32 network = own.address & (~u32{0} << (32 - own.prefix));
  const std::string subnet = fmt::format("{}/{}", net::text_of_address4(network), own.prefix);
  return fmt::format(R"(table ip {0} {{
  chain postrouting {{
    type nat hook postrouting priority 100
    ip saddr {1} oifname != "{2}" masquerade
  }}
  chain forward {{
    type filter hook forward priority 0
    ct state established,related accept
    oifname "{2}" iifname != "{2}" drop
  }}
}})",
                     table_of(name), subnet, name);
}

Result<void> create(const NetCommand& command, zone::Workshop& workshop) {
  BH_ASSIGN(const net::Address4 own, parse_subnet(command.subnet));
  if (zone::find_tool("nft").empty()) return fail("nft is not installed on this host: install the package nftables");
  BH_TRY(net::make_bridge(command.name, own));
  auto finish = [&]() -> Result<void> {
    BH_TRY(run_nft(rules(command.name, own), workshop));
    std::ofstream forward{"/proc/sys/net/ipv4/ip_forward"};
    forward << "1\n";
    forward.close();
    if (!forward) return fail_errno("letting this host forward packets (net.ipv4.ip_forward)");
    std::error_code error;
    fs::create_directories(net::lease_folder(command.name), error);
    if (error) return fail("making {}: {}", net::lease_folder(command.name), error.message());
    return {};
  }();
  if (!finish) (void)net::remove_bridge(command.name);  // all or nothing
  return finish;
}

Result<void> remove(const NetCommand& command, zone::Workshop& workshop) {
  const std::string folder = net::lease_folder(command.name);
  if (!fs::exists(folder))
    return fail("the bridge {} was not made by `bulkhead net create`; `ip link del {}` removes it", command.name,
                command.name);
  BH_TRY(net::remove_bridge(command.name));
  BH_TRY(run_nft(fmt::format("delete table ip {}", table_of(command.name)), workshop));
  std::error_code error;
  fs::remove_all(folder, error);
  return {};
}

void list() {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator{fs::path{net::lease_folder("x")}.parent_path(), error}) {
    std::string text = entry.path().filename().string();
    for (const net::Address4& own : net::addresses4(text))
      text += fmt::format(" {}/{}", net::text_of_address4(own.address), own.prefix);
    print(text + "\n");
  }
}

}  // namespace

int net_command(const NetCommand& command, Surroundings& around) {
  if (command.verb == NetCommand::Verb::kList) {
    list();
    return 0;
  }
  if (auto good = check_name(command.name); !good) return say_failure(good.error(), around);
  const bool make = command.verb == NetCommand::Verb::kCreate;
  auto done = make ? create(command, around.workshop) : remove(command, around.workshop);
  return done ? 0 : say_failure(done.error(), around);
}

}  // namespace bulkhead::control
