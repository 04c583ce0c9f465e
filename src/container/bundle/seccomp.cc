#include "container/bundle/seccomp.h"

#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/mman.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/fd.h"

namespace bulkhead::container {
namespace {

using Json = nlohmann::json;
using Filter = std::unique_ptr<void, void (*)(scmp_filter_ctx)>;

std::optional<u32> action_of(const std::string& name, u32 error) {
  if (name == "SCMP_ACT_KILL" || name == "SCMP_ACT_KILL_THREAD") return SCMP_ACT_KILL_THREAD;
  if (name == "SCMP_ACT_KILL_PROCESS") return SCMP_ACT_KILL_PROCESS;
  if (name == "SCMP_ACT_TRAP") return SCMP_ACT_TRAP;
  if (name == "SCMP_ACT_ERRNO") return SCMP_ACT_ERRNO(error);
  if (name == "SCMP_ACT_TRACE") return SCMP_ACT_TRACE(error);
  if (name == "SCMP_ACT_ALLOW") return SCMP_ACT_ALLOW;
  if (name == "SCMP_ACT_LOG") return SCMP_ACT_LOG;
  return std::nullopt;
}

std::optional<scmp_compare> comparison_of(const std::string& name) {
  if (name == "SCMP_CMP_NE") return SCMP_CMP_NE;
  if (name == "SCMP_CMP_LT") return SCMP_CMP_LT;
  if (name == "SCMP_CMP_LE") return SCMP_CMP_LE;
  if (name == "SCMP_CMP_EQ") return SCMP_CMP_EQ;
  if (name == "SCMP_CMP_GE") return SCMP_CMP_GE;
  if (name == "SCMP_CMP_GT") return SCMP_CMP_GT;
  if (name == "SCMP_CMP_MASKED_EQ") return SCMP_CMP_MASKED_EQ;
  return std::nullopt;
}

Result<u32> read_action(const Json& rule, const char* key, const char* error_key) {
  const std::string name = rule.at(key).get<std::string>();
  const auto action = action_of(name, rule.value(error_key, u32{1}));  // EPERM
  if (!action) return fail("linux.seccomp: there is no {} {}", key, name);
  return *action;
}

Result<std::vector<scmp_arg_cmp>> read_comparisons(const Json& rule) {
  std::vector<scmp_arg_cmp> out;
  if (!rule.contains("args") || rule["args"].is_null()) return out;
  for (const Json& one : rule["args"]) {
    const std::string name = one.at("op").get<std::string>();
    const auto comparison = comparison_of(name);
    if (!comparison || one.at("index").get<unsigned>() > 5)
      return fail("linux.seccomp: there is no comparison {}", name);
    out.push_back(
        {one.at("index").get<unsigned>(), *comparison, one.at("value").get<u64>(), one.value("valueTwo", u64{0})});
  }
  return out;
}

Result<void> add_rule(scmp_filter_ctx filter, u32 otherwise, const Json& rule) {
  BH_ASSIGN(const u32 action, read_action(rule, "action", "errnoRet"));
  if (action == otherwise) return {};
  BH_ASSIGN(const std::vector<scmp_arg_cmp> comparisons, read_comparisons(rule));
  for (const Json& name : rule.at("names")) {
    const int number = ::seccomp_syscall_resolve_name(name.get<std::string>().c_str());
    if (number == __NR_SCMP_ERROR) continue;
    int status = 0;
    // Comparisons are all to be true; but a rule can compare each argument once, so those of one are rules of their
    // own.
    bool twice = false;
    for (std::size_t i = 0; i < comparisons.size(); ++i)
      for (std::size_t j = 0; j < i; ++j) twice |= comparisons[i].arg == comparisons[j].arg;
    if (!twice)
      status = ::seccomp_rule_add_array(filter, action, number, static_cast<unsigned>(comparisons.size()),
                                        comparisons.data());
    for (std::size_t i = 0; twice && i < comparisons.size() && status == 0; ++i)
      status = ::seccomp_rule_add_array(filter, action, number, 1, &comparisons[i]);
    if (status != 0 && status != -EEXIST)
      return fail("linux.seccomp: a rule for {}: {}", name.get<std::string>(), std::strerror(-status));
  }
  return {};
}

Result<std::string> program_of(scmp_filter_ctx filter) {
  const UniqueFd memory{::memfd_create("seccomp", MFD_CLOEXEC)};
  if (!memory || ::seccomp_export_bpf(filter, memory.get()) != 0) return fail("linux.seccomp: it cannot be compiled");
  const off_t size = ::lseek(memory.get(), 0, SEEK_END);
  std::string out(static_cast<std::size_t>(size), '\0');
  if (::pread(memory.get(), out.data(), out.size(), 0) != size) return fail_errno("reading the seccomp program");
  return out;
}

}  // namespace

Result<SeccompProgram> compile_seccomp(const Json& profile) {
  if (!profile.value("listenerPath", "").empty())
    return fail("linux.seccomp.listenerPath: a zone cannot hand a listener to a process of the host");
  BH_ASSIGN(const u32 otherwise, read_action(profile, "defaultAction", "defaultErrnoRet"));
  const Filter filter{::seccomp_init(otherwise), ::seccomp_release};
  if (!filter) return fail("linux.seccomp: the library refuses");
  if (profile.contains("architectures") && profile["architectures"].is_array())
    for (const Json& one : profile["architectures"]) {
      const auto name = one.get<std::string>();
      if (name == "SCMP_ARCH_X86") ::seccomp_arch_add(filter.get(), SCMP_ARCH_X86);
      if (name == "SCMP_ARCH_X32") ::seccomp_arch_add(filter.get(), SCMP_ARCH_X32);
    }
  ::seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_NNP, 0);  // the agent decides
  ::seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_OPTIMIZE, 2);
  if (profile.contains("syscalls") && profile["syscalls"].is_array())
    for (const Json& rule : profile["syscalls"]) BH_TRY(add_rule(filter.get(), otherwise, rule));
  SeccompProgram out;
  BH_ASSIGN(out.instructions, program_of(filter.get()));
  if (profile.contains("flags") && profile["flags"].is_array())
    for (const Json& flag : profile["flags"]) {
      if (flag == "SECCOMP_FILTER_FLAG_LOG") out.flags |= SECCOMP_FILTER_FLAG_LOG;
      if (flag == "SECCOMP_FILTER_FLAG_SPEC_ALLOW") out.flags |= SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    }
  return out;
}

}  // namespace bulkhead::container
