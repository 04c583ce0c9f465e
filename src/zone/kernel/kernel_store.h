// The guest kernels in the cache: Debian's packages, unpacked there, never installed on the host.
#pragma once
#include <string>
#include <vector>

#include "zone/kernel/kernel_image.h"
#include "zone/store/cache.h"

namespace bulkhead::zone {

struct StoredKernel {
  std::string release;  // "6.1.0-43-cloud-amd64"
  std::string path;     // its bzImage
  u64 bytes = 0;        // size of the bzImage
};

// Newest first.
std::vector<StoredKernel> list_kernels(const Cache& cache);

struct FetchRequest {
  std::string what = "cloud";  // "cloud", "generic", a release, or a linux-image package's name
  std::string suite;           // e.g. "bookworm-backports"; empty: the host's own release
};
// Asks the host's apt sources (in a place of its own: the host's package lists are not touched), downloads and unpacks.
// What is already there is not downloaded again. Errors: no such package, no network, no room.
Result<StoredKernel> fetch_kernel(const FetchRequest& request, Cache& cache, Workshop& workshop);

// `wanted` is a file, a stored release, or "cloud" or "generic" for the newest stored of that kind. Empty: the newest
// stored, cloud kernels first, fetched if there is none at all.
Result<KernelImage> resolve_kernel(const std::string& wanted, Cache& cache, Workshop& workshop);

// Pure parts. The package name for FetchRequest::what; a release from such a name; order of versions.
Result<std::string> kernel_package(const std::string& what);
bool is_cloud(const std::string& release);
bool newer(const std::string& a, const std::string& b);
// From `apt-cache show`: the package that a meta package depends on, or an empty string if it is not a meta package.
std::string kernel_dependency(std::string_view apt_cache_show);

}  // namespace bulkhead::zone
