#include "control/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "control/job_options.h"
#include "guest/agent/protocol.h"

namespace bulkhead::control {
namespace {

constexpr const char* kVersion = "bulkhead 0.1.0";

// Raw texts as CLI11 fills them; judged afterwards, so that every error reads the same.
struct Raw {
  std::string backend = "auto", engine = "auto", memory = "512M", rootfs, abi = "xen";
  std::vector<std::string> disks, environment, engine_options, networks, ports, volumes;
  Common common;
  zone::MachineSpec machine;
  zone::ZoneSpec run;
  zone::BootSpec boot;
  bool no_reboot = false;
  zone::FetchRequest fetch;
  std::string zone, zone_disk;
  zone::Request request;
  JobOptions job;
  NetCommand net;
  ImageVerbCommand image;
  zone::CommandChanges changes;
  NodeCommand node;
};

void add_common(CLI::App& app, Raw& raw) {
  app.add_option("-V,--virt-backend", raw.backend, "auto, pv, pvh or hvm")->capture_default_str();
  app.add_option("--engine", raw.engine, "auto, kvm, mshv, xen or dbt")->capture_default_str();
  app.add_option("--abi", raw.abi,
                 "what the guest is told of a hypervisor: xen, kvm (on the engine kvm), or none (plain PVH)")
      ->capture_default_str();
  app.add_option("-c,--cpus", raw.machine.vcpus, "vCPUs")->capture_default_str();
  app.add_option("-m,--memory", raw.memory, "memory, in MiB or with a unit: 512, 512M, 2G")->capture_default_str();
  app.add_option("--cpu", raw.machine.cpu_model, "CPU model (`bulkhead host` lists them)")->capture_default_str();
  app.add_option("--initrd", raw.machine.initrd, "initrd, a file");
  app.add_option("--append", raw.machine.append, "kernel command line (run: added to ours)");
  app.add_option("--disk", raw.disks,
                 "a disk image, FILE or FILE,OPTION,... (ro, cache=none, iops=500, ...); may be repeated")
      ->allow_extra_args(false);
  app.add_option("--net", raw.networks,
                 "a network: none, user, tap=NAME, bridge=NAME, device=NAME or socket=PATH, with ,OPTION=... behind; "
                 "may be repeated")
      ->allow_extra_args(false);
  app.add_option("-p,--publish", raw.ports, "[ADDRESS:]HOST:GUEST[/udp]: a port of this host's for one of the zone's")
      ->allow_extra_args(false);
  app.add_option("--name", raw.machine.name, "the zone's name")->capture_default_str();
  app.add_option("--engine-option", raw.engine_options, "NAME=VALUE for the engine, e.g. dbt.mode=interpreter")
      ->allow_extra_args(false);
  app.add_option("--report", raw.common.report_path, "write what the zone did to this file, as JSON");
  app.add_flag("--json", raw.common.json, "the same as one line on stderr at the end");
}

void add_run(CLI::App& app, Raw& raw) {
  app.footer(
      "Usage in full: bulkhead run [OPTIONS] [ROOTFS] -- COMMAND [ARGUMENT...]\n"
      "               bulkhead run [OPTIONS] IMAGE [-- ARGUMENT...]");
  add_common(app, raw);
  app.add_option("--kernel", raw.machine.kernel, "a file, a release from `bulkhead kernel list`, cloud or generic");
  app.add_option(
      "ROOTFS", raw.rootfs,
      "a folder, an erofs or ext4 image, or a container image (see `bulkhead image`); without it a minimal Debian");
  app.add_flag("-t,--tty", raw.run.terminal, "a terminal for the command");
  app.add_option("--writable", raw.run.rootfs.writable,
                 "a raw image as writable root; made from ROOTFS if it is not there");
  app.add_flag("--pod", raw.run.rootfs.pod,
               "an empty root and the pod agent, which takes its orders on stdin: what the containerd shim runs");
  app.add_option("--env", raw.environment, "NAME=VALUE, or NAME to pass ours on; may be repeated")
      ->allow_extra_args(false);
  app.add_option("--volume", raw.volumes,
                 "HOST:GUEST[:ro]: a folder or file of this host, at a path in the zone; may be repeated")
      ->allow_extra_args(false);
  app.add_option("--user", raw.changes.user, "NAME|UID[:GROUP|GID] for the command; of the image's users")
      ->allow_extra_args(false);
  app.add_option("--entrypoint", raw.changes.entrypoint, "instead of the image's entry point; empty: none");
  app.add_option("--workdir", raw.run.directory, "the command's working directory")->capture_default_str();
  app.add_option("--boot-timeout", raw.run.boot_timeout_s, "seconds until the agent must be up")->capture_default_str();
}

void add_boot(CLI::App& app, Raw& raw) {
  app.footer("Usage in full: bulkhead boot --kernel FILE [OPTIONS]");
  add_common(app, raw);
  app.add_option("--kernel", raw.machine.kernel, "a file, or a release from `bulkhead kernel list`");
  app.add_option("--module", raw.boot.modules, "a Multiboot module, \"FILE [ARGUMENTS]\"; may be repeated")
      ->allow_extra_args(false);
  app.add_flag("--no-reboot", raw.no_reboot, "a reset ends the zone with status 0");
  app.add_flag("--debugcon", raw.boot.debugcon, "a debug console at port 0xe9, on stdout");
  app.add_flag("--debug-exit", raw.boot.debug_exit, "a device at port 0xf4: writing v ends us with status 2*v+1");
}

void add_image(CLI::App& app, Raw& raw) {
  using Verb = ImageVerbCommand::Verb;
  app.require_subcommand(0, 1);
  app.footer(
      "An image is oci:FOLDER[:NAME], oci-archive:FILE[:NAME], docker-archive:FILE[:NAME], containerd:NAME, or the\n"
      "path of such a folder or file. Registries are others' business: get images with skopeo, docker or ctr.");
  const auto verb = [&](const char* name, const char* help, Verb what) {
    CLI::App* const one = app.add_subcommand(name, help);
    one->callback([&raw, what] { raw.image.verb = what; });
    return one;
  };
  verb("list", "the images in the cache", Verb::kList)->add_flag("--json", raw.image.json, "JSON on stdout");
  for (CLI::App* const one : {verb("load", "unpack an image into the cache; prints its digest", Verb::kLoad),
                              verb("inspect", "an image's configuration, as JSON", Verb::kInspect),
                              verb("remove", "remove an image from the cache", Verb::kRemove)})
    one->add_option("IMAGE", raw.image.image, "an image; of those in the cache also its digest, or the beginning of it")
        ->required();
}

void add_host(CLI::App& app, Raw& raw) {
  app.require_subcommand(0, 1);
  CLI::App* const check = app.add_subcommand("check", "whether this host's containerd can run pods in zones");
  CLI::App* const install =
      app.add_subcommand("install", "make it so: programs, containerd's configuration, a guest kernel (needs root)");
  install->add_option("--prefix", raw.node.prefix, "where the programs go, into its bin")->capture_default_str();
  for (CLI::App* const one : {check, install})
    one->add_option("--containerd-config", raw.node.containerd_config, "containerd's configuration")
        ->capture_default_str();
  install->callback([&raw] { raw.node.verb = NodeCommand::Verb::kInstall; });
}

void add_net(CLI::App& app, Raw& raw) {
  app.require_subcommand(0, 1);
  app.add_subcommand("list", "the bridges that `bulkhead net create` made");
  CLI::App* const create =
      app.add_subcommand("create", "make a bridge whose zones reach the world by NAT (needs root)");
  create->add_option("NAME", raw.net.name, "the bridge's name")->required();
  create->add_option("--subnet", raw.net.subnet, "its own IPv4 address and the network around it")
      ->capture_default_str();
  create->callback([&raw] { raw.net.verb = NetCommand::Verb::kCreate; });
  CLI::App* const remove = app.add_subcommand("remove", "remove it again");
  remove->add_option("NAME", raw.net.name, "the bridge's name")->required();
  remove->callback([&raw] { raw.net.verb = NetCommand::Verb::kRemove; });
}

// The verbs for zones that run; each asks for one thing.
void add_zone(CLI::App& app, Raw& raw) {
  using Verb = zone::Request::Verb;
  const auto verb = [&](const char* name, const char* help, Verb what) {
    CLI::App* const one = app.add_subcommand(name, help);
    one->add_option("NAME", raw.zone, "the zone's name, as `bulkhead zone list` shows it")->required();
    one->callback([&raw, what] { raw.request.verb = what; });
    return one;
  };
  app.require_subcommand(0, 1);
  app.add_subcommand("list", "the zones that run")->add_flag("--json", raw.common.json, "JSON on stdout");
  verb("inspect", "what a zone is and has done so far, as JSON", Verb::kInspect);
  CLI::App* const add = verb("disk-add", "plug a disk in; prints its name in the zone", Verb::kDiskAdd);
  add->add_option("--disk", raw.zone_disk, "a disk image, FILE or FILE,OPTION,... as with `run`")->required();
  CLI::App* const remove = verb("disk-remove", "take a disk out", Verb::kDiskRemove);
  remove->add_option("DEVICE", raw.request.device, "its name in the zone, e.g. xvdb")->required();
  remove->add_flag("--force", raw.request.force, "also when the guest does not let go of it");
  CLI::App* const limit = verb("disk-limit", "other limits for a disk; those not named are none", Verb::kDiskLimit);
  limit->add_option("DEVICE", raw.request.device, "its name in the zone, e.g. vda")->required();
  limit->add_option("LIMITS", raw.request.options, "bps=10M,iops=500,...; nothing: no limits");
  CLI::App* const resume = verb("disk-resume", "try again what waits for an error's end", Verb::kDiskResume);
  resume->add_option("DEVICE", raw.request.device, "its name in the zone, e.g. vda")->required();
  add_job_verbs(*app.add_subcommand("job", "jobs on the disks of a zone that runs"), raw.job);
  CLI::App* const stop = verb("stop", "ask a zone to end, and stop it when it has not in time", Verb::kStop);
  stop->add_option("-t,--timeout", raw.request.timeout_s, "seconds until it is stopped")->capture_default_str();
  verb("reboot", "ask a zone's kernel to reboot", Verb::kReboot);
  verb("kill", "end a zone at once", Verb::kKill);
}

Result<zone::DiskSpec> disk_spec(const std::string& text) {
  auto disk = block::parse_disk(text);
  if (!disk) return fail("--disk {}: {}", text, disk.error().message);
  return disk;
}

Result<Command> finish_zone(Raw& raw, const CLI::App& app) {
  if (app.get_subcommands().empty())
    return fail(
        "name a subcommand of zone: list, inspect, disk-add, disk-remove, disk-limit, disk-resume, job, stop, reboot "
        "or kill");
  if (app.got_subcommand("job")) return finish_job(raw.job);
  if (app.got_subcommand("list")) return ZoneListCommand{raw.common.json};
  if (raw.request.timeout_s > zone::Request::kMaxTimeout)
    return fail("--timeout {}: it must be 0 to {} seconds", raw.request.timeout_s, zone::Request::kMaxTimeout);
  if (raw.request.verb == zone::Request::Verb::kDiskAdd) {
    BH_ASSIGN(const zone::DiskSpec disk, disk_spec(raw.zone_disk));
    raw.request.file = disk.path;
    raw.request.read_only = disk.read_only;
    raw.request.options = raw.zone_disk.substr(std::min(disk.path.size() + 1, raw.zone_disk.size()));
  }
  return ZoneAskCommand{raw.zone, raw.request};
}

Result<std::pair<std::string, std::string>> split_pair(const std::string& text, const char* option) {
  const std::size_t equals = text.find('=');
  if (equals == 0 || equals == std::string::npos) return fail("{} {}: it must be NAME=VALUE", option, text);
  return std::pair{text.substr(0, equals), text.substr(equals + 1)};
}

Result<void> judge_request(Raw& raw) {
  const auto backend = engine::parse_backend(raw.backend);
  if (!backend) return fail("--virt-backend {}: it must be auto, pv, pvh or hvm", raw.backend);
  raw.common.request.backend = *backend;
  if (raw.engine == "auto") return {};
  raw.common.request.engine = engine::parse_engine(raw.engine);
  if (!raw.common.request.engine) return fail("--engine {}: it must be auto, kvm, mshv, xen or dbt", raw.engine);
  return {};
}

Result<void> judge_abi(Raw& raw) {
  if (raw.abi != "xen" && raw.abi != "none" && raw.abi != "kvm")
    return fail("--abi {}: it must be xen, kvm or none", raw.abi);
  raw.common.abi = raw.machine.abi = raw.abi == "xen"   ? machine::Abi::kXen
                                     : raw.abi == "kvm" ? machine::Abi::kKvm
                                                        : machine::Abi::kNone;
  if (raw.common.abi != machine::Abi::kXen && raw.common.request.backend == engine::VirtBackend::kPv)
    return fail("--abi {} does not go with -V pv, which is Xen's ABI; use -V pvh, or leave --abi out", raw.abi);
  return {};
}

Result<void> judge_networks(Raw& raw) {
  net::NetConfig* user = nullptr;
  raw.machine.networks.reserve(raw.networks.size() + 1);
  for (const std::string& text : raw.networks) {
    auto network = net::parse_net(text);
    if (!network) return fail("--net {}: {}", text, network.error().message);
    raw.machine.networks.push_back(std::move(*network));
    if (raw.machine.networks.back().kind != net::NetConfig::Kind::kUser) continue;
    if (user != nullptr) return fail("--net {}: one user network is enough", text);
    user = &raw.machine.networks.back();
  }
  if (raw.networks.size() > zone::MachineSpec::kMaxNetworks)
    return fail("--net: a zone has at most {} networks", zone::MachineSpec::kMaxNetworks);
  if (raw.ports.empty()) return {};
  if (raw.networks.empty()) {
    raw.machine.networks.emplace_back().kind = net::NetConfig::Kind::kUser;
    user = &raw.machine.networks.back();
  }
  if (user == nullptr) return fail("-p {}: only --net user publishes ports", raw.ports[0]);
  for (const std::string& text : raw.ports) {
    auto port = net::parse_port(text);
    if (!port) return fail("-p {}: {}", text, port.error().message);
    user->user.ports.push_back(std::move(*port));
  }
  return {};
}

Result<void> judge_machine(Raw& raw) {
  BH_TRY(judge_request(raw));
  BH_TRY(judge_abi(raw));
  BH_ASSIGN(raw.machine.memory_bytes, parse_memory(raw.memory));
  const std::string& name = raw.machine.name;
  const bool sane =
      !name.empty() && name.size() <= 63 && name[0] != '-' &&
      std::ranges::all_of(name, [](unsigned char c) { return std::isalnum(c) != 0 || c == '-' || c == '.'; });
  if (!sane) return fail("--name {}: it must be 1 to 63 letters, digits, '-' and '.'", name);
  for (const std::string& text : raw.disks) {
    BH_ASSIGN(zone::DiskSpec disk, disk_spec(text));
    raw.machine.disks.push_back(std::move(disk));
  }
  BH_TRY(judge_networks(raw));
  for (const std::string& option : raw.engine_options) {
    BH_ASSIGN(auto pair, split_pair(option, "--engine-option"));
    raw.machine.engine_options.push_back(std::move(pair));
  }
  return {};
}

// HOST may have colons in it; GUEST may not.
Result<zone::VolumeSpec> volume_spec(const std::string& text) {
  zone::VolumeSpec volume;
  std::string rest = text;
  volume.read_only = rest.ends_with(":ro");
  if (volume.read_only || rest.ends_with(":rw")) rest.resize(rest.size() - 3);
  const std::size_t colon = rest.rfind(':');
  if (colon == std::string::npos || colon == 0)
    return fail("--volume {}: it must be HOST:GUEST, HOST:GUEST:ro or HOST:GUEST:rw", text);
  volume.host = rest.substr(0, colon);
  volume.guest = rest.substr(colon + 1);
  if (!volume.guest.starts_with('/') || volume.guest.find_first_not_of('/') == std::string::npos)
    return fail("--volume {}: the place in the zone must be an absolute path, and not /", text);
  if (volume.guest.size() > 1024) return fail("--volume {}: the place in the zone is too long", text);
  return volume;
}

Result<Command> finish_run(Raw& raw, const std::vector<std::string>& command) {
  BH_TRY(judge_machine(raw));
  if (raw.run.rootfs.pod && (!command.empty() || !raw.rootfs.empty() || !raw.run.rootfs.writable.empty()))
    return fail("--pod brings its own root file system and command: name neither");
  if (command.empty() && raw.rootfs.empty() && !raw.run.rootfs.pod)
    return fail("there is no command to run: put it behind --, as in `bulkhead run -- uname -a`");
  for (const std::string& variable : raw.environment) {
    if (!variable.contains('=')) {
      const char* const ours = std::getenv(variable.c_str());
      if (ours != nullptr) raw.run.environment.push_back(variable + "=" + ours);
      continue;
    }
    BH_TRY(split_pair(variable, "--env"));
    raw.run.environment.push_back(variable);
  }
  for (const std::string& text : raw.volumes) {
    BH_ASSIGN(zone::VolumeSpec volume, volume_spec(text));
    raw.run.volumes.push_back(std::move(volume));
  }
  if (raw.volumes.size() > fs::FileServer::kMaxShares)
    return fail("{} volumes: a zone has at most {}", raw.volumes.size(), fs::FileServer::kMaxShares);
  if (!raw.run.directory.starts_with('/')) return fail("--workdir {}: it must be an absolute path", raw.run.directory);
  if (raw.run.boot_timeout_s < 1 || raw.run.boot_timeout_s > 86400)
    return fail("--boot-timeout {}: it must be 1 to 86400 seconds", raw.run.boot_timeout_s);
  raw.run.machine = raw.machine;
  raw.run.rootfs.source = raw.rootfs;
  raw.run.command = raw.run.rootfs.pod ? std::vector<std::string>{agent::kPodAgent} : command;
  raw.changes.arguments = command;
  raw.changes.environment = raw.run.environment;
  return RunCommand{raw.common, raw.changes, raw.run};
}

Result<Command> finish_boot(Raw& raw, bool append_given) {
  BH_TRY(judge_machine(raw));
  if (raw.machine.kernel.empty()) return fail("boot needs --kernel: a file, or a release from `bulkhead kernel list`");
  raw.boot.machine = raw.machine;
  if (!append_given) raw.boot.machine.append = "console=ttyS0";
  raw.boot.reboot = !raw.no_reboot;
  return BootCommand{raw.common, raw.boot};
}

// CLI11 speaks in several lines; the first one says it.
std::string first_line(std::string text) { return text.substr(0, text.find('\n')); }

}  // namespace

Result<u64> parse_memory(const std::string& text) {
  u64 number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string_view unit{end, static_cast<std::size_t>(text.data() + text.size() - end)};
  if (unit.ends_with("iB")) unit.remove_suffix(2);
  const u64 scale = unit.empty() || unit == "M" ? 1_MiB : unit == "K" ? 1_KiB : unit == "G" ? 1_GiB : 0;
  u64 bytes = 0;
  if (error != std::errc{} || scale == 0 || __builtin_mul_overflow(number, scale, &bytes))
    return fail("--memory {}: it must be a number of MiB, or have a unit, as in 512M or 2G", text);
  return bytes;
}

Result<Command> parse_command_line(const std::vector<std::string>& arguments) {
  if (!arguments.empty() && arguments[0] == "disk") return DiskCommand{{arguments.begin() + 1, arguments.end()}};
  // What is behind -- belongs to the zone and is none of our parser's business.
  const auto dashes = std::ranges::find(arguments, "--");
  std::vector<std::string> ours{arguments.begin(), dashes};
  const std::vector<std::string> command{dashes == arguments.end() ? dashes : dashes + 1, arguments.end()};
  std::ranges::reverse(ours);  // as CLI11 wants them

  Raw raw;
  CLI::App app{"Bulkhead: micro-VM zones on any hypervisor, or on none", "bulkhead"};
  app.require_subcommand(0, 1);
  app.set_version_flag("--version", kVersion);
  CLI::App* const run = app.add_subcommand("run", "run a command in a zone of its own");
  CLI::App* const boot = app.add_subcommand("boot", "boot a bare kernel, its console on stdin and stdout");
  app.add_subcommand("disk", "make, examine, check, copy and change disk images: `bulkhead disk --help`");
  CLI::App* const host = app.add_subcommand("host", "which engines this host has, and what auto means here");
  CLI::App* const kernel = app.add_subcommand("kernel", "guest kernels");
  kernel->require_subcommand(0, 1);
  CLI::App* const fetch = kernel->add_subcommand("fetch", "get a Debian kernel package into the cache");
  CLI::App* const list = kernel->add_subcommand("list", "the kernels in the cache");
  CLI::App* const zones = app.add_subcommand("zone", "the zones that run");
  CLI::App* const net = app.add_subcommand("net", "bridges for zones");
  add_run(*run, raw);
  CLI::App* const image = app.add_subcommand("image", "container images");
  add_net(*net, raw);
  add_image(*image, raw);
  add_host(*host, raw);
  add_boot(*boot, raw);
  add_zone(*zones, raw);
  fetch->add_option("WHAT", raw.fetch.what, "cloud, generic, a release or a package's name")->capture_default_str();
  fetch->add_option("--suite", raw.fetch.suite, "a suite of the Debian archive, e.g. bookworm-backports");
  for (CLI::App* const one : {host, fetch, list}) one->add_flag("--json", raw.common.json, "JSON on stdout");

  try {
    app.parse(ours);
  } catch (const CLI::CallForHelp&) {
    return HelpCommand{app.help()};
  } catch (const CLI::CallForVersion&) {
    return HelpCommand{std::string{kVersion} + "\n"};
  } catch (const CLI::ParseError& error) {
    return fail("{} (see `bulkhead --help`)", first_line(error.what()));
  }
  raw.machine.networks_given = !raw.networks.empty() || !raw.ports.empty();
  raw.machine.named = run->count("--name") + boot->count("--name") > 0;
  raw.changes.own_entrypoint = run->count("--entrypoint") > 0;
  if (run->count("--workdir") > 0) raw.changes.directory = raw.run.directory;
  if (*run) return finish_run(raw, command);
  if (app.get_subcommands().empty())
    return fail("name a subcommand: run, boot, zone, host or kernel (see `bulkhead --help`)");
  if (*kernel && kernel->get_subcommands().empty()) return fail("name a subcommand of kernel: fetch or list");
  if (dashes != arguments.end()) return fail("only `bulkhead run` takes a command behind --");
  if (*zones) return finish_zone(raw, *zones);
  if (*net && net->get_subcommands().empty()) return fail("name a subcommand of net: list, create or remove");
  if (*net) return raw.net;
  if (*image && image->get_subcommands().empty())
    return fail("name a subcommand of image: list, load, inspect or remove");
  if (*image) return raw.image;
  if (*boot) return finish_boot(raw, boot->count("--append") > 0);
  if (*host && !host->get_subcommands().empty()) return raw.node;
  if (*host) return HostCommand{raw.common.json};
  if (*fetch) return KernelFetchCommand{raw.fetch, raw.common.json};
  return KernelListCommand{raw.common.json};
}

}  // namespace bulkhead::control
