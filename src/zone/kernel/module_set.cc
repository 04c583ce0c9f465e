#include "zone/kernel/module_set.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

#include "zone/kernel/module_file.h"

namespace bulkhead::zone {
namespace {

namespace fs = std::filesystem;

// Soft dependencies name what the crypto layer would look up by alias; these are the modules behind the aliases.
std::string behind_alias(const std::string& name) { return name == "crc32c" ? "crc32c_generic" : name; }

class Resolver {
 public:
  explicit Resolver(std::string folder) : folder_{std::move(folder)} {}
  Result<void> index();
  Result<void> want(const WantedModule& wanted) {
    if (!wanted.required && !known(wanted.name)) return {};
    return add(wanted.name, "the zone");
  }
  std::vector<LoadableModule> take() { return std::move(order_); }

 private:
  bool known(const std::string& name) const { return builtin_.contains(name) || files_.contains(name); }
  Result<void> add(const std::string& name, const std::string& wanted_by);

  std::string folder_;
  std::map<std::string, std::string> files_;
  std::set<std::string> builtin_, visited_;
  std::vector<LoadableModule> order_;
};

Result<void> Resolver::index() {
  std::error_code error;
  fs::recursive_directory_iterator walk{folder_ + "/kernel", fs::directory_options::skip_permission_denied, error};
  for (; !error && walk != fs::recursive_directory_iterator{}; walk.increment(error))
    if (std::string name = module_name(walk->path().filename().string()); !name.empty())
      files_.emplace(std::move(name), walk->path().string());
  if (error) return fail("reading the kernel modules in {}/kernel: {}", folder_, error.message());
  std::ifstream list{folder_ + "/modules.builtin"};
  for (std::string line; std::getline(list, line);) builtin_.insert(module_name(fs::path{line}.filename().string()));
  return {};
}

// Depth first; a module is marked before its dependencies are, so a circle ends here (and then in the kernel).
Result<void> Resolver::add(const std::string& name, const std::string& wanted_by) {
  if (builtin_.contains(name) || !visited_.insert(name).second) return {};
  const auto found = files_.find(name);
  if (found == files_.end())
    return fail("the kernel modules in {} have no {}, which {} needs", folder_, name, wanted_by);
  std::ifstream in{found->second, std::ios::binary};
  std::string file{std::istreambuf_iterator<char>{in}, {}};
  if (in.bad() || file.empty()) return fail("reading the kernel module {}", found->second);
  auto content = unpack_module(std::move(file));
  if (!content) return fail("unpacking the kernel module {}: {}", found->second, content.error().message);
  const auto info = parse_module(std::as_bytes(std::span{*content}));
  if (!info) return fail("reading the kernel module {}: {}", found->second, info.error().message);
  for (const std::string& soft : info->pre_soft)
    if (const std::string real = behind_alias(soft); known(real)) BH_TRY(add(real, name));
  for (const std::string& needed : info->depends) BH_TRY(add(needed, name));
  order_.push_back({name, std::move(*content)});
  return {};
}

}  // namespace

Result<std::vector<LoadableModule>> resolve_modules(const std::string& folder,
                                                    const std::vector<WantedModule>& wanted) {
  Resolver resolver{folder};
  BH_TRY(resolver.index());
  for (const WantedModule& module : wanted) BH_TRY(resolver.want(module));
  return resolver.take();
}

}  // namespace bulkhead::zone
