// `bulkhead host check` and `bulkhead host install`: a node of Kubernetes, or any host with containerd.
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "control/commands.h"
#include "engine/choose.h"
#include "zone/kernel/kernel_store.h"
#include "zone/store/cache.h"

asm(".section .rodata\n"
    "bulkhead_containerd_snippet_start:\n"
    ".incbin \"" BULKHEAD_CONTAINERD_SNIPPET
    "\"\n"
    "bulkhead_containerd_snippet_end:\n"
    ".byte 0\n"
    ".text\n");
extern "C" const char bulkhead_containerd_snippet_start[], bulkhead_containerd_snippet_end[];

namespace bulkhead::control {
namespace {

namespace fs = std::filesystem;
constexpr char kShim[] = "containerd-shim-bulkhead-v2";
constexpr std::string_view kTable = "containerd.runtimes.bulkhead]";

std::string_view snippet() {
  return {bulkhead_containerd_snippet_start,
          static_cast<std::size_t>(bulkhead_containerd_snippet_end - bulkhead_containerd_snippet_start)};
}

std::string read_text(const std::string& path) {
  std::ifstream in{path};
  std::ostringstream out;
  out << in.rdbuf();
  return std::move(out).str();
}

std::string find_program(const std::string& name) {
  const char* const path = std::getenv("PATH");
  std::istringstream folders{path != nullptr ? path : "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"};
  for (std::string folder; std::getline(folders, folder, ':');)
    if (::access((folder + "/" + name).c_str(), X_OK) == 0) return folder + "/" + name;
  return {};
}

struct Finding {
  bool good;
  std::string text;  // what there is, or what is missing and what to do
};

Finding look_for(const std::string& program, const std::string& what_for) {
  const std::string path = find_program(program);
  if (!path.empty()) return {true, fmt::format("{}: {}", program, path)};
  return {false, fmt::format("{} is not in PATH: {}", program, what_for)};
}

Finding look_for_runtime(const std::string& config) {
  if (read_text(config).contains(kTable)) return {true, fmt::format("{} has the runtime bulkhead", config)};
  return {false, fmt::format("{} does not have the runtime bulkhead: `bulkhead host install` adds it", config)};
}

Finding look_for_kernel() {
  auto cache = zone::Cache::open();
  if (!cache) return {false, cache.error().message};
  const auto kernels = zone::list_kernels(*cache);
  if (!kernels.empty()) return {true, fmt::format("a guest kernel: {}", kernels.front().release)};
  return {false, "no guest kernel is in the cache: `bulkhead kernel fetch`, or the first pod has to wait for it"};
}

Finding look_for_device(const char* path, const char* what_for) {
  if (::access(path, R_OK | W_OK) == 0) return {true, fmt::format("{} can be used", path)};
  return {false, fmt::format("{} cannot be used: {}", path, what_for)};
}

Result<void> copy_program(const fs::path& from, const fs::path& to) {
  std::error_code error;
  if (fs::equivalent(from, to, error)) return {};
  const fs::path aside = to.string() + ".new";  // the old one may be running
  fs::create_directories(to.parent_path(), error);
  fs::copy_file(from, aside, fs::copy_options::overwrite_existing, error);
  if (!error) fs::rename(aside, to, error);
  if (error) return fail("installing {} as {}: {}", from.string(), to.string(), error.message());
  print(fmt::format("installed {}\n", to.string()));
  return {};
}

Result<void> add_runtime(const std::string& config) {
  std::string text = read_text(config);
  if (text.contains(kTable)) return {};
  if (text.empty()) text = "version = 2\n";
  if (!text.contains("version = 2"))
    return fail("{} is not of version 2: add packaging/containerd-bulkhead.toml to it by hand", config);
  std::error_code error;
  fs::create_directories(fs::path{config}.parent_path(), error);
  std::ofstream out{config + ".new"};
  out << text << "\n" << snippet();
  out.close();
  if (out) fs::rename(config + ".new", config, error);
  if (!out || error) return fail("writing {}", config);
  print(fmt::format("added the runtime bulkhead to {}: restart containerd\n", config));
  return {};
}

Result<void> install(const NodeCommand& command, zone::Workshop& workshop) {
  std::error_code error;
  const fs::path self = fs::read_symlink("/proc/self/exe", error);
  const fs::path shim = self.parent_path() / kShim;
  if (::access(shim.c_str(), X_OK) != 0) return fail("{} is not beside this program", shim.string());
  const fs::path folder = fs::path{command.prefix} / "bin";
  BH_TRY(copy_program(self, folder / "bulkhead"));
  BH_TRY(copy_program(shim, folder / kShim));
  BH_TRY(add_runtime(command.containerd_config));
  BH_ASSIGN(zone::Cache cache, zone::Cache::open());
  BH_ASSIGN(const zone::KernelImage kernel, zone::resolve_kernel("", cache, workshop));
  workshop.progress.done();
  print(fmt::format("the guest kernel is {}\n", kernel.release));
  return {};
}

int check(const NodeCommand& command) {
  const auto choice = engine::choose({}, engine::probe_host());
  const Finding findings[] = {
      {choice.has_value(), choice ? fmt::format("auto means {} on {}", engine::backend_name(choice->backend),
                                                engine::engine_name(choice->engine))
                                  : choice.error().message},
      {::geteuid() == 0, ::geteuid() == 0 ? "run by root" : "not run by root: containerd runs shims as root"},
      look_for("containerd", "install the package containerd"),
      look_for(kShim, "`bulkhead host install` puts it into /usr/local/bin"),
      look_for("bulkhead", "`bulkhead host install` puts it into /usr/local/bin"),
      look_for_runtime(command.containerd_config),
      look_for_kernel(),
      look_for_device("/dev/net/tun", "pods with a network need it (modprobe tun)"),
  };
  bool good = true;
  for (const Finding& one : findings) {
    print(fmt::format("{} {}\n", one.good ? "ok     " : "missing", one.text));
    good &= one.good;
  }
  return good ? 0 : 1;
}

}  // namespace

int node_command(const NodeCommand& command, Surroundings& around) {
  if (command.verb == NodeCommand::Verb::kCheck) return check(command);
  if (auto done = install(command, around.workshop); !done) return say_failure(done.error(), around);
  return 0;
}

}  // namespace bulkhead::control
