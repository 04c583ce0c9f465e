#include "container/bundle/read_spec.h"

#include <sys/stat.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "container/bundle/names.h"
#include "container/bundle/resources.h"
#include "container/bundle/seccomp.h"

namespace bulkhead::container {
namespace {

using Json = nlohmann::json;
constexpr char kTypeAnnotation[] = "io.kubernetes.cri.container-type";
constexpr char kSandboxAnnotation[] = "io.kubernetes.cri.sandbox-id";

// An object or an array that may be missing or null.
const Json& part(const Json& of, const char* name) {
  static const Json kNothing = Json::object();
  const auto found = of.find(name);
  return found == of.end() || found->is_null() ? kNothing : *found;
}
std::vector<std::string> texts(const Json& of, const char* name) {
  const Json& list = part(of, name);
  return list.is_array() ? list.get<std::vector<std::string>>() : std::vector<std::string>{};
}
std::string text(const Json& of, const char* name) {
  const auto found = of.find(name);
  return found == of.end() || found->is_null() ? std::string{} : found->get<std::string>();
}

Result<u64> capability_set(const Json& capabilities, const char* name) {
  u64 set = 0;
  for (const std::string& one : texts(capabilities, name)) {
    const auto number = capability_number(one);
    if (!number) return fail("process.capabilities.{}: there is no capability {}", name, one);
    set |= u64{1} << *number;
  }
  return set;
}

Result<void> read_user(const Json& user, pod::Process& out) {
  out.set_uid(user.value("uid", u32{0}));
  out.set_gid(user.value("gid", u32{0}));
  if (const Json& groups = part(user, "additionalGids"); groups.is_array())
    for (const Json& group : groups) out.add_groups(group.get<u32>());
  if (user.contains("umask")) out.set_umask(user["umask"].get<u32>());
  return {};
}

Result<void> read_limits(const Json& process, pod::Process& out) {
  const Json& limits = part(process, "rlimits");
  if (!limits.is_array()) return {};
  for (const Json& one : limits) {
    const auto number = rlimit_number(text(one, "type"));
    if (!number) return fail("process.rlimits: there is no limit {}", text(one, "type"));
    pod::Rlimit& limit = *out.add_rlimits();
    limit.set_resource(*number);
    limit.set_soft(one.at("soft").get<u64>());
    limit.set_hard(one.at("hard").get<u64>());
  }
  return {};
}

Result<pod::Process> process_of(const Json& process) {
  pod::Process out;
  for (const std::string& one : texts(process, "args")) out.add_arguments(one);
  if (out.arguments_size() == 0) return fail("process.args: there is no program to run");
  for (const std::string& one : texts(process, "env")) out.add_environment(one);
  out.set_directory(text(process, "cwd"));
  if (!out.directory().starts_with('/')) return fail("process.cwd: {} is no absolute path", out.directory());
  out.set_terminal(process.value("terminal", false));
  if (const Json& size = part(process, "consoleSize"); !size.empty()) {
    out.set_columns(size.value("width", 0u));
    out.set_rows(size.value("height", 0u));
  }
  BH_TRY(read_user(part(process, "user"), out));
  const Json& capabilities = part(process, "capabilities");
  BH_ASSIGN(const u64 bounding, capability_set(capabilities, "bounding"));
  BH_ASSIGN(const u64 effective, capability_set(capabilities, "effective"));
  BH_ASSIGN(const u64 inheritable, capability_set(capabilities, "inheritable"));
  BH_ASSIGN(const u64 permitted, capability_set(capabilities, "permitted"));
  BH_ASSIGN(const u64 ambient, capability_set(capabilities, "ambient"));
  out.set_bounding(bounding);
  out.set_effective(effective);
  out.set_inheritable(inheritable);
  out.set_permitted(permitted);
  out.set_ambient(ambient);
  out.set_no_new_privileges(process.value("noNewPrivileges", false));
  if (process.contains("oomScoreAdj")) out.set_oom_score(process["oomScoreAdj"].get<int>());
  BH_TRY(read_limits(process, out));
  return out;
}

// ---- mounts

Result<void> read_mount(const Json& one, Bundle& out) {
  const std::string target = text(one, "destination"), source = text(one, "source"), type = text(one, "type");
  if (!target.starts_with('/')) return fail("mounts: the destination {} is no absolute path", target);
  MountOptions options = mount_options(texts(one, "options"));
  pod::Mount& mount = *out.container.add_mounts();
  mount.set_target(target);
  mount.set_flags(options.flags);
  mount.set_propagation(options.propagation);
  if (type != "bind" && !options.bind) {
    mount.set_type(type);
    mount.set_source(source.empty() ? type : source);
    mount.set_data(options.data);
    return {};
  }
  if (!source.starts_with('/')) return fail("mounts: the source {} of {} is no absolute path", source, target);
  mount.set_kind(pod::Mount::BIND);
  if (target == "/dev/shm") {
    // Memory that the pod's processes share is the zone's own: the host has no part in it.
    mount.set_source("/dev/shm");
    return {};
  }
  const std::string place = fmt::format("{}/mount-{}", out.container.name(), out.shared.size());
  out.shared.push_back({source, place});
  mount.set_source(place);
  return {};
}

// ---- devices

void add_device(pod::Container& out, const std::string& path, u32 type, u32 major, u32 minor, u32 mode, u32 uid,
                u32 gid) {
  pod::Device& device = *out.add_devices();
  device.set_path(path);
  device.set_type(type);
  device.set_major(major);
  device.set_minor(minor);
  device.set_mode(mode & 07777);
  device.set_uid(uid);
  device.set_gid(gid);
}

// [oci-runtime "Default Devices"], and those asked for.
void read_devices(const Json& linux_part, pod::Container& out) {
  struct Default {
    const char* path;
    u32 major, minor;
  };
  std::set<std::string> have;
  for (const Default& one : {Default{"/dev/null", 1, 3}, Default{"/dev/zero", 1, 5}, Default{"/dev/full", 1, 7},
                             Default{"/dev/random", 1, 8}, Default{"/dev/urandom", 1, 9}, Default{"/dev/tty", 5, 0}}) {
    add_device(out, one.path, S_IFCHR, one.major, one.minor, 0666, 0, 0);
    have.insert(one.path);
  }
  const Json& devices = part(linux_part, "devices");
  if (!devices.is_array()) return;
  for (const Json& one : devices) {
    const std::string path = text(one, "path"), type = text(one, "type");
    if (type == "p" || !path.starts_with("/dev/") || !have.insert(path).second) continue;
    add_device(out, path, type == "b" ? S_IFBLK : S_IFCHR, static_cast<u32>(one.value("major", i64{0})),
               static_cast<u32>(one.value("minor", i64{0})), one.value("fileMode", 0666u), one.value("uid", 0u),
               one.value("gid", 0u));
  }
}

// ---- namespaces

void place_namespace(const Json* space, const Bundle& bundle, pod::Namespace& out) {
  if (space == nullptr) {
    out.set_kind(pod::Namespace::ZONE);
  } else if (text(*space, "path").empty() || bundle.role != Bundle::Role::kMember) {
    out.set_kind(pod::Namespace::OWN);
  } else {
    // A path is into the host's /proc, of the process that stands for the sandbox: what is meant is the sandbox's.
    out.set_kind(pod::Namespace::CONTAINER);
    out.set_container(bundle.sandbox);
  }
}

Result<void> read_namespaces(const Json& linux_part, Bundle& out) {
  std::map<std::string, const Json*> spaces;
  const Json& list = part(linux_part, "namespaces");
  if (list.is_array())
    for (const Json& one : list) spaces[text(one, "type")] = &one;
  for (const char* const refused : {"user", "time"})
    if (spaces.contains(refused))
      return fail("linux.namespaces: a zone's container has no {} namespace of its own", refused);
  if (!spaces.contains("mount")) return fail("linux.namespaces: a container without a mount namespace is not possible");
  const auto find = [&](const char* name) { return spaces.contains(name) ? spaces[name] : nullptr; };
  place_namespace(find("pid"), out, *out.container.mutable_pid_namespace());
  place_namespace(find("ipc"), out, *out.container.mutable_ipc_namespace());
  place_namespace(find("uts"), out, *out.container.mutable_uts_namespace());
  if (const Json* const network = find("network")) out.net_space = text(*network, "path");
  if (!out.net_space && out.role != Bundle::Role::kMember)
    return fail("the host's network (hostNetwork) cannot be given to a zone: it has a kernel of its own");
  return {};
}

Result<void> read_hooks(const Json& spec, pod::Container& out) {
  // Hooks of the host's side expect a process of the host and its namespaces; whoever asks for them needs them.
  for (const char* const refused : {"prestart", "createRuntime", "createContainer", "poststart", "poststop"})
    if (!part(part(spec, "hooks"), refused).empty())
      return fail("hooks.{}: a zone's container is no process of the host, so only hooks.startContainer can be run",
                  refused);
  const Json& hooks = part(part(spec, "hooks"), "startContainer");
  if (!hooks.is_array()) return {};
  for (const Json& one : hooks) {
    pod::Hook& hook = *out.add_start_hooks();
    hook.set_path(text(one, "path"));
    if (!hook.path().starts_with('/')) return fail("hooks.startContainer: {} is no absolute path", hook.path());
    for (const std::string& argument : texts(one, "args")) hook.add_arguments(argument);
    if (hook.arguments_size() == 0) hook.add_arguments(hook.path());
    for (const std::string& variable : texts(one, "env")) hook.add_environment(variable);
    hook.set_timeout_s(one.value("timeout", 0u));
  }
  return {};
}

Result<Place> place_of(const Json& spec) {
  const Json& annotations = part(spec, "annotations");
  Place out;
  const std::string type = text(annotations, kTypeAnnotation);
  if (type == "sandbox") out.role = Bundle::Role::kSandbox;
  if (type != "container") return out;
  out.role = Bundle::Role::kMember;
  out.sandbox = text(annotations, kSandboxAnnotation);
  const bool sane =
      !out.sandbox.empty() && out.sandbox.size() <= 128 && std::ranges::all_of(out.sandbox, [](unsigned char c) {
        return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.';
      });
  if (!sane) return fail("annotation {}: \"{}\" names no sandbox", kSandboxAnnotation, out.sandbox);
  return out;
}

Result<void> read_linux(const Json& spec, Bundle& out) {
  const Json& linux_part = part(spec, "linux");
  out.cgroups_path = text(linux_part, "cgroupsPath");
  BH_TRY(read_namespaces(linux_part, out));
  read_devices(linux_part, out.container);
  const Json& resources = part(linux_part, "resources");
  BH_TRY(add_settings(resources, *out.container.mutable_settings()));
  if (const i64 limit = part(resources, "memory").value("limit", i64{0}); limit > 0)
    out.limits.memory = static_cast<u64>(limit);
  const i64 quota = part(resources, "cpu").value("quota", i64{0});
  const i64 period = part(resources, "cpu").value("period", i64{100000});
  if (quota > 0 && period > 0) out.limits.cpus = static_cast<double>(quota) / static_cast<double>(period);
  for (const std::string& path : texts(linux_part, "maskedPaths")) out.container.add_masked_paths(path);
  for (const std::string& path : texts(linux_part, "readonlyPaths")) out.container.add_read_only_paths(path);
  const Json& sysctls = part(linux_part, "sysctl");
  for (const auto& [name, value] : sysctls.items()) {
    pod::Sysctl& sysctl = *out.container.add_sysctls();
    sysctl.set_name(name);
    sysctl.set_value(value.get<std::string>());
  }
  if (const Json& profile = part(linux_part, "seccomp"); !profile.empty()) {
    BH_ASSIGN(SeccompProgram program, compile_seccomp(profile));
    out.container.set_seccomp(std::move(program.instructions));
    out.container.set_seccomp_flags(program.flags);
  }
  return {};
}

Result<Bundle> bundle_of(const Json& spec, const std::string& container) {
  Bundle out;
  out.container.set_name(container);
  BH_ASSIGN(const Place place, place_of(spec));
  out.role = place.role;
  out.sandbox = place.sandbox;
  if (const Json& annotations = part(spec, "annotations"); !annotations.empty())
    out.annotations = annotations.get<Annotations>();
  BH_ASSIGN(*out.container.mutable_process(), process_of(part(spec, "process")));
  out.root = text(part(spec, "root"), "path");
  out.container.set_root(container + "/root");
  out.container.set_root_read_only(part(spec, "root").value("readonly", false));
  out.container.set_hostname(text(spec, "hostname"));
  if (const Json& mounts = part(spec, "mounts"); mounts.is_array())
    for (const Json& one : mounts) BH_TRY(read_mount(one, out));
  BH_TRY(read_linux(spec, out));
  BH_TRY(read_hooks(spec, out.container));
  return out;
}

// The library's exceptions end here.
template <class Work>
auto guarded(const std::string& text_in, const char* what, Work work) -> decltype(work(Json{})) {
  const Json spec = Json::parse(text_in, nullptr, false);
  if (!spec.is_object()) return fail("{}: it is no JSON object", what);
  try {
    return work(spec);
  } catch (const Json::exception& error) {
    return fail("{}: {}", what, error.what());
  }
}

}  // namespace

Result<Place> read_place(const std::string& text_in) { return guarded(text_in, "config.json", place_of); }

Result<Bundle> read_spec(const std::string& text_in, const std::string& container) {
  return guarded(text_in, "config.json", [&](const Json& spec) { return bundle_of(spec, container); });
}

Result<pod::Process> read_process(const std::string& text_in) {
  return guarded(text_in, "the process to add", process_of);
}

}  // namespace bulkhead::container
