#include "control/options.h"

#include <gtest/gtest.h>

#include "zone/run_zone.h"

namespace bulkhead::control {
namespace {

using Arguments = std::vector<std::string>;

template <class T>
T parse(const Arguments& arguments) {
  auto command = parse_command_line(arguments);
  EXPECT_TRUE(command.has_value()) << (command ? "" : command.error().message);
  return command && std::holds_alternative<T>(*command) ? std::get<T>(*command) : T{};
}
std::string error(const Arguments& arguments) {
  const auto command = parse_command_line(arguments);
  EXPECT_FALSE(command.has_value());
  return command ? "" : command.error().message;
}

TEST(Options, WhatMayBeRepeatedTakesOneWordEach) {
  for (const Arguments& option :
       {Arguments{"--disk", "a.img"}, Arguments{"--env", "A=b"}, Arguments{"--engine-option", "kvm.xen=on"},
        Arguments{"--engine-option=kvm.xen=on"}}) {
    Arguments words{"run"};
    words.insert(words.end(), option.begin(), option.end());
    words.insert(words.end(), {"./root", "--", "true"});
    EXPECT_EQ(parse<RunCommand>(words).spec.rootfs.source, "./root") << option.front();
  }
}

TEST(Options, RunInFull) {
  const RunCommand run = parse<RunCommand>({"run",       "-V",
                                            "pvh",       "--engine",
                                            "dbt",       "-c",
                                            "2",         "-m",
                                            "1G",        "--kernel",
                                            "generic",   "--append",
                                            "debug",     "--disk",
                                            "a.img",     "--disk",
                                            "b.img,ro",  "--name",
                                            "one",       "--json",
                                            "--report",  "r.json",
                                            "-t",        "--writable",
                                            "w.img",     "--boot-timeout",
                                            "5",         "--cpu",
                                            "x86-64-v2", "--env",
                                            "A=b=c",     "--workdir",
                                            "/tmp",      "./root",
                                            "--",        "sh",
                                            "-c",        "echo --",
                                            "--",        "-m"});
  EXPECT_EQ(run.common.request.backend, engine::VirtBackend::kPvh);
  EXPECT_EQ(run.common.request.engine, engine::EngineKind::kDbt);
  EXPECT_TRUE(run.common.json);
  EXPECT_EQ(run.common.report_path, "r.json");
  EXPECT_EQ(run.spec.machine.vcpus, 2u);
  EXPECT_EQ(run.spec.machine.memory_bytes, 1_GiB);
  EXPECT_EQ(run.spec.machine.cpu_model, "x86-64-v2");
  ASSERT_EQ(run.spec.machine.disks.size(), 2u);
  EXPECT_FALSE(run.spec.machine.disks[0].read_only);
  EXPECT_EQ(run.spec.machine.disks[1].path, "b.img");
  EXPECT_TRUE(run.spec.machine.disks[1].read_only);
  EXPECT_TRUE(run.spec.terminal);
  EXPECT_EQ(run.spec.rootfs.source, "./root");
  EXPECT_EQ(run.spec.rootfs.writable, "w.img");
  EXPECT_EQ(run.spec.boot_timeout_s, 5u);
  EXPECT_EQ(run.spec.environment, Arguments{"A=b=c"});
  EXPECT_EQ(run.spec.command, (Arguments{"sh", "-c", "echo --", "--", "-m"}));
}

TEST(Options, Abi) {
  EXPECT_EQ(parse<BootCommand>({"boot", "--kernel", "k"}).spec.machine.abi, machine::Abi::kXen);
  const auto plain = parse<BootCommand>({"boot", "--kernel", "k", "-V", "pvh", "--abi", "none"});
  EXPECT_EQ(plain.spec.machine.abi, machine::Abi::kNone);
  EXPECT_EQ(plain.common.abi, machine::Abi::kNone);
  EXPECT_EQ(parse<BootCommand>({"boot", "--kernel", "k", "--abi", "kvm"}).common.abi, machine::Abi::kKvm);
  EXPECT_TRUE(error({"boot", "--kernel", "k", "--abi", "vmw"}).contains("--abi vmw: it must be xen, kvm or none"));
  EXPECT_TRUE(error({"run", "-V", "pv", "--abi", "kvm", "--", "true"}).contains("--abi kvm does not go with -V pv"));
  EXPECT_TRUE(error({"run", "-V", "pv", "--abi", "none", "--", "true"}).contains("does not go with -V pv"));
}

TEST(Options, RunWithDefaults) {
  const RunCommand run = parse<RunCommand>({"run", "--", "true"});
  EXPECT_EQ(run.common.request.backend, engine::VirtBackend::kAuto);
  EXPECT_FALSE(run.common.request.engine.has_value());
  EXPECT_EQ(run.spec.machine.memory_bytes, 512_MiB);
  EXPECT_EQ(run.spec.rootfs.source, "");
  EXPECT_EQ(run.spec.boot_timeout_s, 60u);
}

TEST(Options, Networks) {
  using Kind = net::NetConfig::Kind;
  const RunCommand none = parse<RunCommand>({"run", "--", "true"});
  EXPECT_FALSE(none.spec.machine.networks_given);
  const RunCommand run =
      parse<RunCommand>({"run", "--net", "user,ipv6=off", "-p", "8080:80", "-p", "53:53/udp", "./root", "--", "true"});
  EXPECT_EQ(run.spec.rootfs.source, "./root");
  EXPECT_TRUE(run.spec.machine.networks_given);
  ASSERT_EQ(run.spec.machine.networks.size(), 1u);
  EXPECT_EQ(run.spec.machine.networks[0].user.ports.size(), 2u);
  const RunCommand port = parse<RunCommand>({"run", "-p", "8080:80", "--", "true"});
  ASSERT_EQ(port.spec.machine.networks.size(), 1u);
  EXPECT_EQ(port.spec.machine.networks[0].kind, Kind::kUser);
  const BootCommand boot = parse<BootCommand>({"boot", "--kernel", "k", "--net", "tap=a", "--net", "socket=b"});
  EXPECT_EQ(boot.spec.machine.networks.size(), 2u);
  EXPECT_TRUE(error({"run", "--net", "none", "-p", "1:2", "--", "true"}).contains("only --net user"));
  EXPECT_TRUE(error({"run", "--net", "user", "--net", "user", "--", "true"}).contains("one user network"));
  EXPECT_TRUE(error({"run", "--net", "wifi", "--", "true"}).contains("--net wifi"));
  EXPECT_TRUE(error({"run", "-p", "80", "--", "true"}).contains("-p 80"));
  const NetCommand create = parse<NetCommand>({"net", "create", "br0", "--subnet", "10.1.0.1/16"});
  EXPECT_EQ(create.verb, NetCommand::Verb::kCreate);
  EXPECT_EQ(create.name, "br0");
  EXPECT_EQ(create.subnet, "10.1.0.1/16");
  EXPECT_EQ(parse<NetCommand>({"net", "list"}).verb, NetCommand::Verb::kList);
  EXPECT_TRUE(error({"net"}).contains("subcommand"));
  EXPECT_TRUE(error({"net", "remove"}).contains("NAME"));
}

TEST(Options, Volumes) {
  const RunCommand run = parse<RunCommand>({"run", "--volume", "/a:b:/c", "--volume", "rel:/d/e:ro", "--", "true"});
  ASSERT_EQ(run.spec.volumes.size(), 2u);
  EXPECT_EQ(run.spec.volumes[0].host, "/a:b");
  EXPECT_EQ(run.spec.volumes[0].guest, "/c");
  EXPECT_FALSE(run.spec.volumes[0].read_only);
  EXPECT_EQ(run.spec.volumes[1].host, "rel");
  EXPECT_TRUE(run.spec.volumes[1].read_only);
  for (const std::string text : {"", ":", "/a", "/a:b", ":/b", "/a:/", "/a:/b:rx", "/a:"})
    EXPECT_TRUE(error({"run", "--volume", text, "--", "true"}).contains("--volume")) << text;
}

TEST(Options, Images) {
  const RunCommand run = parse<RunCommand>(
      {"run", "--user", "app:users", "--entrypoint", "", "--workdir", "/srv", "oci:layout:tag", "--", "-v"});
  EXPECT_EQ(run.changes.user, "app:users");
  EXPECT_TRUE(run.changes.own_entrypoint);
  EXPECT_EQ(run.changes.directory, "/srv");
  EXPECT_EQ(run.changes.arguments, (Arguments{"-v"}));
  EXPECT_TRUE(parse<RunCommand>({"run", "oci:layout"}).spec.command.empty()) << "the image says what to run";
  EXPECT_EQ(parse<ImageVerbCommand>({"image", "remove", "abc"}).verb, ImageVerbCommand::Verb::kRemove);
  EXPECT_TRUE(error({"image"}).contains("name a subcommand"));
}

TEST(Options, Boot) {
  const BootCommand boot =
      parse<BootCommand>({"boot", "--kernel", "k", "--module", "m a b", "--no-reboot", "--debug-exit", "--debugcon"});
  EXPECT_EQ(boot.spec.machine.kernel, "k");
  EXPECT_EQ(boot.spec.machine.append, "console=ttyS0");
  EXPECT_EQ(boot.spec.modules, Arguments{"m a b"});
  EXPECT_FALSE(boot.spec.reboot);
  EXPECT_TRUE(boot.spec.debug_exit);
  EXPECT_EQ(parse<BootCommand>({"boot", "--kernel", "k", "--append", ""}).spec.machine.append, "");
}

TEST(Options, Others) {
  EXPECT_TRUE(parse<HostCommand>({"host", "--json"}).json);
  EXPECT_EQ(parse<KernelFetchCommand>({"kernel", "fetch"}).request.what, "cloud");
  const auto fetch = parse<KernelFetchCommand>({"kernel", "fetch", "generic", "--suite", "sid"});
  EXPECT_EQ(fetch.request.what, "generic");
  EXPECT_EQ(fetch.request.suite, "sid");
  EXPECT_FALSE(parse<KernelListCommand>({"kernel", "list"}).json);
  EXPECT_TRUE(parse<HelpCommand>({"--help"}).text.contains("run"));
  EXPECT_TRUE(parse<HelpCommand>({"run", "--help"}).text.contains("--writable"));
}

TEST(Options, Zone) {
  using Verb = zone::Request::Verb;
  EXPECT_TRUE(parse<ZoneListCommand>({"zone", "list", "--json"}).json);
  EXPECT_FALSE(parse<BootCommand>({"boot", "--kernel", "k"}).spec.machine.named);
  EXPECT_TRUE(parse<RunCommand>({"run", "--name", "zone", "--", "true"}).spec.machine.named);
  EXPECT_EQ(parse<ZoneAskCommand>({"zone", "inspect", "one"}).request.verb, Verb::kInspect);
  const auto add = parse<ZoneAskCommand>({"zone", "disk-add", "one", "--disk", "a.img,ro"});
  EXPECT_EQ(add.name, "one");
  EXPECT_EQ(add.request.verb, Verb::kDiskAdd);
  EXPECT_EQ(add.request.file, "a.img");
  EXPECT_TRUE(add.request.read_only);
  EXPECT_EQ(parse<ZoneAskCommand>({"zone", "disk-add", "one", "--disk", "a.qcow2,cache=none,iops=5"}).request.options,
            "cache=none,iops=5");
  EXPECT_EQ(parse<ZoneAskCommand>({"zone", "disk-limit", "one", "vda", "bps=1M"}).request.options, "bps=1M");
  const auto remove = parse<ZoneAskCommand>({"zone", "disk-remove", "one", "xvdb", "--force"});
  EXPECT_EQ(remove.request.verb, Verb::kDiskRemove);
  EXPECT_EQ(remove.request.device, "xvdb");
  EXPECT_TRUE(remove.request.force);
  EXPECT_EQ(parse<ZoneAskCommand>({"zone", "stop", "one"}).request.timeout_s, 10u);
  EXPECT_EQ(parse<ZoneAskCommand>({"zone", "stop", "one", "-t", "3"}).request.timeout_s, 3u);
  EXPECT_EQ(parse<ZoneAskCommand>({"zone", "reboot", "one"}).request.verb, Verb::kReboot);
  EXPECT_EQ(parse<ZoneAskCommand>({"zone", "kill", "one"}).request.verb, Verb::kKill);
}

TEST(Options, ZoneJobs) {
  using Verb = zone::Request::Verb;
  const auto mirror =
      parse<ZoneAskCommand>({"zone", "job", "mirror", "one", "vda", "copy.qcow2", "--speed", "10M", "--sync", "top",
                             "--on-target-error", "stop", "--auto-complete", "--wait"});
  EXPECT_EQ(mirror.request.verb, Verb::kJobStart);
  EXPECT_EQ(mirror.request.device, "vda");
  EXPECT_EQ(mirror.request.job.target, "copy.qcow2");
  EXPECT_EQ(mirror.request.job.speed, 10_MiB);
  EXPECT_EQ(mirror.request.job.sync, block::JobSync::kTop);
  EXPECT_EQ(mirror.request.job.on_target_error, block::JobErrorAction::kStop);
  EXPECT_TRUE(mirror.request.job.auto_complete && mirror.wait);
  const auto commit = parse<ZoneAskCommand>({"zone", "job", "commit", "one", "vda", "--base", "b", "--top", "t"});
  EXPECT_EQ(commit.request.job.kind, block::JobKind::kCommit);
  EXPECT_EQ(commit.request.job.base + commit.request.job.top, "bt");
  const auto speed = parse<ZoneAskCommand>({"zone", "job", "speed", "one", "mirror0", "1M"});
  EXPECT_EQ(speed.request.verb, Verb::kJobChange);
  EXPECT_EQ(speed.request.action, "speed");
  EXPECT_EQ(speed.request.speed, 1_MiB);
  EXPECT_TRUE(parse<ZoneAskCommand>({"zone", "job", "list", "one", "--json"}).json);
}

TEST(Options, ErrorsAreOneLineAndNameTheArgument) {
  const std::pair<Arguments, const char*> cases[] = {
      {{}, "subcommand"},
      {{"frobnicate"}, "frobnicate"},
      {{"run"}, "behind --"},
      {{"run", "--"}, "behind --"},
      {{"run", "--no-such-option", "--", "true"}, "--no-such-option"},
      {{"run", "-c", "many", "--", "true"}, "--cpus"},
      {{"run", "-c", "-1", "--", "true"}, "--cpus"},
      {{"run", "-m", "12Q", "--", "true"}, "--memory"},
      {{"run", "-m", "99999999999999999G", "--", "true"}, "--memory"},
      {{"run", "-V", "xen", "--", "true"}, "--virt-backend"},
      {{"run", "--engine", "qemu", "--", "true"}, "--engine"},
      {{"run", "--name", "a b", "--", "true"}, "--name"},
      {{"run", "--env", "=x", "--", "true"}, "--env"},
      {{"run", "--workdir", "tmp", "--", "true"}, "--workdir"},
      {{"run", "--boot-timeout", "0", "--", "true"}, "--boot-timeout"},
      {{"run", "a", "b", "--", "true"}, "b"},
      {{"run", "--engine-option", "x", "--", "true"}, "--engine-option"},
      {{"boot"}, "--kernel"},
      {{"host", "--", "true"}, "behind --"},
      {{"kernel"}, "subcommand"},
      {{"zone"}, "subcommand"},
      {{"zone", "stop"}, "NAME"},
      {{"zone", "stop", "one", "-t", "90000"}, "--timeout"},
      {{"zone", "disk-add", "one"}, "--disk"},
      {{"zone", "disk-add", "one", "--disk", ",ro"}, "--disk"},
      {{"zone", "disk-remove", "one"}, "DEVICE"},
      {{"zone", "job"}, "subcommand"},
      {{"zone", "job", "mirror", "one", "vda"}, "TARGET"},
      {{"zone", "job", "stream", "one", "vda", "--speed", "quick"}, "speed"},
      {{"zone", "job", "stream", "one", "vda", "--on-source-error", "panic"}, "errors"},
      {{"zone", "kill", "one", "--", "true"}, "behind --"},
  };
  for (const auto& [arguments, said] : cases) {
    const std::string message = error(arguments);
    EXPECT_TRUE(message.contains(said)) << message << " should say " << said;
    EXPECT_FALSE(message.contains('\n')) << message;
  }
}

TEST(Options, Memory) {
  EXPECT_EQ(parse_memory("512").value(), 512_MiB);
  EXPECT_EQ(parse_memory("65536K").value(), 64_MiB);
  EXPECT_EQ(parse_memory("2GiB").value(), 2_GiB);
  for (const char* const bad : {"", "M", "-1", "1.5G", "1T", "1 G", "0x10"}) EXPECT_FALSE(parse_memory(bad)) << bad;
}

TEST(CommandEnvironment, LastOneWins) {
  EXPECT_EQ(
      zone::command_environment({"HOME=/x", "A=1", "A=2"}, "xterm"),
      (Arguments{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm", "HOME=/x", "A=2"}));
}

}  // namespace
}  // namespace bulkhead::control
