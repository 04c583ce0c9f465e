#include "zone/kernel/kernel_store.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "zone/image/apt_sources.h"

namespace bulkhead::zone {
namespace {

namespace fs = std::filesystem;
constexpr std::string_view kKind = "kernels";
constexpr std::string_view kPrefix = "linux-image-";

// Everything apt writes goes below one folder that is removed afterwards.
class PrivateApt {
 public:
  PrivateApt(std::string folder, Workshop& workshop) : folder_{std::move(folder)}, workshop_{workshop} {}
  ~PrivateApt() {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  Result<void> open(const AptSources& sources) {
    std::error_code error;
    fs::remove_all(folder_, error);
    for (const char* const part : {"/lists/partial", "/archives/partial", "/sources"})
      fs::create_directories(folder_ + part, error);
    if (error) return fail("making the folder {}: {}", folder_, error.message());
    std::ofstream{folder_ + "/sources/host.sources"} << sources.deb822;
    std::ofstream{folder_ + "/sources/host.list"} << sources.one_line;
    std::ofstream{folder_ + "/status"} << "";
    BH_TRY(run("apt-get", {"--error-on=any", "update"}));
    return {};
  }
  Result<std::string> run(const std::string& program, std::vector<std::string> arguments) {
    Tool tool{.command = {program, "-q",
                          "-o",    "Dir::State::lists=" + folder_ + "/lists",
                          "-o",    "Dir::State::status=" + folder_ + "/status",
                          "-o",    "Dir::Cache=" + folder_,
                          "-o",    "Dir::Cache::archives=" + folder_ + "/archives",
                          "-o",    "Dir::Etc::sourcelist=/dev/null",
                          "-o",    "Dir::Etc::sourceparts=" + folder_ + "/sources",
                          "-o",    "APT::Architecture=amd64",
                          "-o",    "APT::Architectures::=amd64",
                          "-o",    "APT::Sandbox::User=",
                          "-o",    "Acquire::Languages=none"},
              .package = "apt",
              .environment = {{"DEBIAN_FRONTEND", "noninteractive"}},
              .directory = folder_,
              .keep_output = true};
    tool.command.insert(tool.command.end(), arguments.begin(), arguments.end());
    return run_tool(tool, workshop_);
  }
  // The one .deb that was downloaded.
  Result<std::string> downloaded() const {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator{folder_, error})
      if (entry.path().extension() == ".deb") return entry.path().string();
    return fail("apt-get downloaded no package into {}", folder_);
  }

 private:
  std::string folder_;
  Workshop& workshop_;
};

// What a process that was killed could not remove itself.
void remove_stale_apt_folders(const std::string& root) {
  std::error_code error;
  std::vector<fs::path> stale;
  for (const auto& entry : fs::directory_iterator{root, error}) {
    const std::string name = entry.path().filename().string();
    const pid_t owner = name.starts_with("apt-") ? std::atoi(name.c_str() + 4) : 0;
    if (owner > 0 && ::kill(owner, 0) != 0 && errno == ESRCH) stale.push_back(entry.path());
  }
  for (const fs::path& path : stale) fs::remove_all(path, error);
}

Result<std::string> concrete_package(PrivateApt& apt, const std::string& package) {
  auto shown = apt.run("apt-cache", {"--no-all-versions", "show", package});
  if (!shown || shown->empty())
    return fail(
        "there is no package {} in the host's apt sources (for a newer kernel try --suite, e.g. bookworm-backports)",
        package);
  const std::string behind = kernel_dependency(*shown);
  return behind.empty() ? package : behind;
}

StoredKernel stored(const std::string& folder, const std::string& release) {
  StoredKernel kernel{release, fmt::format("{}/{}/boot/vmlinuz-{}", folder, release, release), 0};
  std::error_code error;
  kernel.bytes = fs::file_size(kernel.path, error);
  if (error) kernel.bytes = 0;
  return kernel;
}

Result<void> unpack(const std::string& deb, const std::string& folder, const std::string& release, Workshop& workshop) {
  BH_TRY(run_tool({.command = {"dpkg-deb", "-x", deb, folder}, .package = "dpkg"}, workshop));
  std::error_code error;
  fs::remove_all(folder + "/usr/share", error);
  // Since the merge of /usr a package may carry its modules there.
  if (fs::is_directory(folder + "/usr/lib/modules", error) && !fs::exists(folder + "/lib", error)) {
    fs::create_directories(folder + "/lib", error);
    fs::rename(folder + "/usr/lib/modules", folder + "/lib/modules", error);
  }
  if (!fs::exists(folder + "/boot/vmlinuz-" + release, error))
    return fail("the package {} holds no boot/vmlinuz-{}", fs::path{deb}.filename().string(), release);
  return {};
}

}  // namespace

Result<std::string> kernel_package(const std::string& what) {
  const bool sane = !what.empty() && std::ranges::all_of(what, [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '.' || c == '+';
  });
  if (!sane || what[0] == '-')
    return fail("'{}' names no kernel: try cloud, generic or a release such as 6.1.0-43-cloud-amd64", what);
  if (what == "cloud") return std::string{"linux-image-cloud-amd64"};
  if (what == "generic") return std::string{"linux-image-amd64"};
  return what.starts_with(kPrefix) ? what : std::string{kPrefix} + what;
}

bool is_cloud(const std::string& release) { return release.contains("cloud"); }
bool newer(const std::string& a, const std::string& b) { return ::strverscmp(a.c_str(), b.c_str()) > 0; }

std::string kernel_dependency(std::string_view text) {
  std::istringstream in{std::string{text}};
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with("Depends:")) continue;
    std::istringstream words{line.substr(8)};
    for (std::string word; words >> word;) {
      std::erase(word, ',');
      if (word.starts_with(kPrefix)) return word;
    }
    return {};
  }
  return {};
}

std::vector<StoredKernel> list_kernels(const Cache& cache) {
  std::vector<StoredKernel> kernels;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator{cache.folder(kKind), error}) {
    StoredKernel kernel = stored(cache.folder(kKind), entry.path().filename().string());
    if (kernel.bytes > 0) kernels.push_back(std::move(kernel));
  }
  std::ranges::sort(kernels, [](const auto& a, const auto& b) { return newer(a.release, b.release); });
  return kernels;
}

Result<StoredKernel> fetch_kernel(const FetchRequest& request, Cache& cache, Workshop& workshop) {
  BH_ASSIGN(const std::string package, kernel_package(request.what));
  workshop.progress.begin("looking for " + package + " in the host's apt sources");
  AptSources sources = read_apt_sources();
  if (!request.suite.empty()) {
    BH_ASSIGN(sources, sources_for_suite(sources, request.suite));
  }
  remove_stale_apt_folders(cache.root());
  PrivateApt apt{fmt::format("{}/apt-{}", cache.root(), ::getpid()), workshop};
  BH_TRY(apt.open(sources));
  BH_ASSIGN(const std::string concrete, concrete_package(apt, package));
  std::string release = concrete.substr(kPrefix.size());
  if (release.ends_with("-unsigned")) release.resize(release.size() - 9);
  workshop.progress.begin("fetching the kernel " + release);
  auto path = cache.get(kKind, release, workshop, 0, [&](const std::string& folder) -> Result<void> {
    BH_TRY(apt.run("apt-get", {"download", concrete}));
    BH_ASSIGN(const std::string deb, apt.downloaded());
    return unpack(deb, folder, release, workshop);
  });
  workshop.progress.done();
  if (!path) return std::unexpected(std::move(path.error()));
  return stored(cache.folder(kKind), release);
}

Result<KernelImage> resolve_kernel(const std::string& wanted, Cache& cache, Workshop& workshop) {
  std::error_code error;
  if (wanted.contains('/') || (!wanted.empty() && fs::exists(wanted, error))) return inspect_kernel(wanted);
  std::vector<StoredKernel> kernels = list_kernels(cache);
  std::ranges::stable_partition(kernels, [](const StoredKernel& kernel) { return is_cloud(kernel.release); });
  for (const StoredKernel& kernel : kernels)
    if (wanted.empty() || kernel.release == wanted || (wanted == "cloud" && is_cloud(kernel.release)) ||
        (wanted == "generic" && !is_cloud(kernel.release)))
      return inspect_kernel(kernel.path);
  if (!wanted.empty())
    return fail("there is no kernel {}: name a file, or get one with `bulkhead kernel fetch {}`", wanted, wanted);
  BH_ASSIGN(const StoredKernel fetched, fetch_kernel({}, cache, workshop));
  return inspect_kernel(fetched.path);
}

}  // namespace bulkhead::zone
