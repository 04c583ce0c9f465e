// Limits of the OCI runtime specification, which are those of version 1 of control groups, as files of version 2
// [oci-runtime "Control groups"] [linux "Control Group v2"].
#pragma once
#include <google/protobuf/repeated_field.h>

#include <nlohmann/json_fwd.hpp>

#include "base/ints.h"
#include "base/result.h"
#include "guest/pod/pod.pb.h"

namespace bulkhead::container {

using Settings = google::protobuf::RepeatedPtrField<pod::Setting>;

// `resources`: the object "linux.resources". Errors: a value that cannot be. May throw nlohmann's exceptions.
Result<void> add_settings(const nlohmann::json& resources, Settings& out);
// The same from text, e.g. of an update.
Result<void> add_settings_from(const std::string& text, Settings& out);

}  // namespace bulkhead::container
