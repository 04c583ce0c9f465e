// A seccomp profile [oci-runtime "Seccomp"] as a program of the kernel's.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/ints.h"
#include "base/result.h"

namespace bulkhead::container {

struct SeccompProgram {
  std::string instructions;  // an array of struct sock_filter
  u32 flags = 0;             // SECCOMP_FILTER_FLAG_*
};

// `profile`: the object "linux.seccomp". System calls that this library does not know are passed over, as every runtime
// does: profiles name those of all architectures. Errors: a word that is none, or what we do not do (a listener).
Result<SeccompProgram> compile_seccomp(const nlohmann::json& profile);

}  // namespace bulkhead::container
