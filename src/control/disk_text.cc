#include "control/disk_text.h"

#include <sys/stat.h>

namespace bulkhead::control {
namespace {

using namespace block;
using namespace block::tools;
namespace spec = bulkhead::spec::qcow2;
using Json = nlohmann::ordered_json;

Result<bool> on_off(const std::string& value) {
  if (value == "on" || value == "true") return true;
  if (value == "off" || value == "false") return false;
  return fail("'{}' is neither on nor off", value);
}

Result<u32> log2_of(u64 value, const char* what) {
  if (value == 0 || (value & (value - 1)) != 0) return fail("{} is not a power of two", what);
  return static_cast<u32>(__builtin_ctzll(value));
}

Result<void> read_option(NewImage& image, const std::string& name, const std::string& value) {
  qcow2::CreateOptions& out = image.options;
  if (name == "preallocation") {
    BH_ASSIGN(out.preallocation, preallocation_of(value));
    return {};
  }
  if (name == "size") {
    BH_ASSIGN(out.size, parse_bytes(value));
    return {};
  }
  if (image.format != "qcow2") return fail("{} images have no option '{}'", image.format, name);
  if (name == "cluster_size") {
    BH_ASSIGN(const u64 bytes, parse_bytes(value));
    BH_ASSIGN(out.cluster_bits, log2_of(bytes, "cluster_size"));
  } else if (name == "refcount_bits") {
    BH_ASSIGN(const u64 width, parse_bytes(value));
    BH_ASSIGN(out.refcount_order, log2_of(width, "refcount_bits"));
  } else if (name == "compat") {
    if (value != "0.10" && value != "v2" && value != "1.1" && value != "v3") return fail("compat is 0.10 or 1.1");
    out.version = value == "0.10" || value == "v2" ? 2 : 3;
  } else if (name == "lazy_refcounts") {
    BH_ASSIGN(out.lazy_refcounts, on_off(value));
  } else if (name == "extended_l2") {
    BH_ASSIGN(out.extended_l2, on_off(value));
  } else if (name == "data_file_raw") {
    BH_ASSIGN(out.raw_external, on_off(value));
  } else if (name == "data_file") {
    out.data_file = value;
  } else if (name == "backing_file") {
    out.backing_file = value;
  } else if (name == "backing_fmt") {
    out.backing_format = value;
  } else if (name == "encrypt.format") {
    if (value != "luks") return fail("encrypt.format is luks; the old aes is only read");
  } else if (name == "encrypt.key-file") {
    image.key_file = value;
  } else if (name == "encrypt.iter-time") {
    BH_ASSIGN(const u64 milliseconds, parse_bytes(value));
    image.key_time_ms = static_cast<unsigned>(std::clamp<u64>(milliseconds, 1, 60000));
  } else if (name == "compression_type") {
    if (value != "zlib" && value != "zstd") return fail("compression_type is zlib or zstd");
    out.compression = value == "zstd" ? spec::CompressionType::kZstd : spec::CompressionType::kDeflate;
  } else {
    return fail("qcow2 images have no option '{}'", name);
  }
  return {};
}

Json qcow2_json(const qcow2::Qcow2Node& image) {
  const qcow2::Header& header = image.header();
  Json data{{"compat", header.version == 2 ? "0.10" : "1.1"},
            {"compression-type", header.compression == spec::CompressionType::kZstd ? "zstd" : "zlib"}};
  if (header.version >= 3) {
    data["lazy-refcounts"] = (header.compatible & spec::kLazyRefcounts) != 0;
    data["refcount-bits"] = 1U << header.refcount_order;
    data["corrupt"] = (header.incompatible & spec::kCorrupt) != 0;
    data["extended-l2"] = header.extended_l2();
    if (!header.data_file.empty()) data["data-file"] = header.data_file;
    if (header.external_data()) data["data-file-raw"] = (header.autoclear & spec::kRawExternalData) != 0;
  } else {
    data["refcount-bits"] = 16;
  }
  for (const qcow2::Bitmap& bitmap : image.bitmaps()) {
    Json flags = Json::array();
    if (bitmap.in_use()) flags.push_back("in-use");
    if ((bitmap.flags & spec::kBitmapAuto) != 0) flags.push_back("auto");
    data["bitmaps"].push_back(
        {{"flags", flags}, {"name", bitmap.name}, {"granularity", u64{1} << bitmap.granularity_bits}});
  }
  return {{"type", "qcow2"}, {"data", data}};
}

std::string size_text(u64 bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes);
  unsigned unit = 0;
  for (; value >= 1024 && unit < 6; ++unit) value /= 1024;
  return fmt::format("{:.3g} {}", value, kUnits[unit]);
}

}  // namespace

Result<Preallocation> preallocation_of(const std::string& text) {
  if (text == "off") return Preallocation::kOff;
  if (text == "metadata") return Preallocation::kMetadata;
  if (text == "falloc") return Preallocation::kFalloc;
  if (text == "full") return Preallocation::kFull;
  return fail("preallocation is off, metadata, falloc or full");
}

Result<void> read_options(NewImage& image, const std::vector<std::string>& texts) {
  for (const std::string& text : texts) {
    for (std::size_t at = 0; at <= text.size();) {
      const std::size_t end = std::min(text.find(',', at), text.size()), equals = text.find('=', at);
      if (equals >= end) return fail("-o {}: it must be NAME=VALUE,...", text);
      BH_TRY(read_option(image, text.substr(at, equals - at), text.substr(equals + 1, end - equals - 1)));
      at = end + 1;
    }
  }
  return {};
}

Json info_json(Node& node, const std::string& path) {
  Json out{{"virtual-size", node.size()}, {"filename", path}};
  const qcow2::Qcow2Node* const image = as_qcow2(&node);
  if (image != nullptr) out["cluster-size"] = image->layout().cluster();
  out["format"] = image != nullptr ? "qcow2" : "raw";
  struct stat info{};
  if (::stat(path.c_str(), &info) == 0) out["actual-size"] = static_cast<u64>(info.st_blocks) * 512;
  if (image == nullptr) {
    out["dirty-flag"] = false;
    return out;
  }
  if (!image->snapshots().empty()) out["snapshots"] = snapshots_json(*image);
  out["format-specific"] = qcow2_json(*image);
  if (image->header().encrypted()) {
    out["encrypted"] = true;
    out["format-specific"]["data"]["encrypt"] = {
        {"format", image->header().crypt_method == spec::kLuksCrypt ? "luks" : "aes"}};
  }
  const qcow2::Header& header = image->header();
  if (!header.backing_file.empty()) {
    out["full-backing-filename"] = qcow2::child_path(path, header.backing_file);
    out["backing-filename"] = header.backing_file;
    if (!header.backing_format.empty()) out["backing-filename-format"] = header.backing_format;
  }
  out["dirty-flag"] = (header.incompatible & spec::kDirty) != 0;
  return out;
}

std::string info_text(const Json& info) {
  std::string out =
      fmt::format("image: {}\nfile format: {}\nvirtual size: {} ({} bytes)\n", info["filename"].get<std::string>(),
                  info["format"].get<std::string>(), size_text(info["virtual-size"]), info["virtual-size"].get<u64>());
  if (info.contains("actual-size")) out += fmt::format("disk size: {}\n", size_text(info["actual-size"]));
  if (info.contains("cluster-size")) out += fmt::format("cluster_size: {}\n", info["cluster-size"].get<u64>());
  if (info.contains("backing-filename")) {
    out += fmt::format("backing file: {}\n", info["backing-filename"].get<std::string>());
    if (info.contains("backing-filename-format"))
      out += fmt::format("backing file format: {}\n", info["backing-filename-format"].get<std::string>());
  }
  if (info.contains("snapshots")) out += "Snapshot list:\n" + snapshots_text(info["snapshots"]);
  if (!info.contains("format-specific")) return out;
  out += "Format specific information:\n";
  for (const auto& [name, value] : info["format-specific"]["data"].items()) {
    std::string spaced = name;
    for (char& c : spaced)
      if (c == '-') c = ' ';
    out += fmt::format("    {}: {}\n", spaced, value.is_string() ? value.get<std::string>() : value.dump());
  }
  return out;
}

Json check_json(const qcow2::CheckResult& result, const std::string& path) {
  Json out{{"image-end-offset", result.image_end},
           {"total-clusters", result.total_clusters},
           {"check-errors", result.errors},
           {"filename", path},
           {"format", "qcow2"},
           {"allocated-clusters", result.allocated_clusters},
           {"fragmented-clusters", result.fragmented_clusters},
           {"compressed-clusters", result.compressed_clusters}};
  if (result.leaks != 0) out["leaks"] = result.leaks - result.leaks_fixed;
  if (result.corruptions != 0) out["corruptions"] = result.corruptions - result.corruptions_fixed;
  if (result.leaks_fixed != 0) out["leaks-fixed"] = result.leaks_fixed;
  if (result.corruptions_fixed != 0) out["corruptions-fixed"] = result.corruptions_fixed;
  return out;
}

std::string check_text(const qcow2::CheckResult& result) {
  std::string out;
  for (const std::string& line : result.messages) out += line + "\n";
  if (result.leaks_fixed + result.corruptions_fixed != 0)
    out += fmt::format("Repaired: {} leaked clusters, {} corruptions.\n", result.leaks_fixed, result.corruptions_fixed);
  const u64 leaks = result.leaks - result.leaks_fixed, corruptions = result.corruptions - result.corruptions_fixed;
  if (leaks + corruptions == 0) {
    out += "No errors were found on the image.\n";
  } else {
    if (corruptions != 0) out += fmt::format("{} errors were found on the image.\n", corruptions);
    if (leaks != 0)
      out += fmt::format("{} leaked clusters were found on the image: space is lost, nothing else.\n", leaks);
  }
  return out + fmt::format("{}/{} clusters allocated, {} fragmented, {} compressed\nImage end offset: {}\n",
                           result.allocated_clusters, result.total_clusters, result.fragmented_clusters,
                           result.compressed_clusters, result.image_end);
}

std::string map_json(const std::vector<MapLine>& lines) {
  std::string out = "[";
  for (const MapLine& line : lines) {
    Json one{{"start", line.start},     {"length", line.length}, {"depth", line.depth},
             {"present", line.present}, {"zero", line.zero},     {"data", line.data}};
    if (line.host_offset) one["offset"] = *line.host_offset;
    out += (out.size() > 1 ? ",\n" : "") + one.dump();
  }
  return out + "]\n";
}

std::string map_text(const std::vector<MapLine>& lines) {
  std::string out = fmt::format("{:<16}{:<16}{:<16}{}\n", "Offset", "Length", "Mapped to", "File");
  for (const MapLine& line : lines)
    if (line.data && !line.zero)
      out += fmt::format("{:<16}{:<16}{:<16}{}\n", fmt::format("{:#x}", line.start), fmt::format("{:#x}", line.length),
                         line.host_offset ? fmt::format("{:#x}", *line.host_offset) : "compressed", line.file);
  return out;
}

Json snapshots_json(const qcow2::Qcow2Node& image) {
  Json out = Json::array();
  for (const qcow2::Snapshot& one : image.snapshots())
    out.push_back({{"id", one.id},
                   {"name", one.name},
                   {"vm-state-size", one.vm_state_size},
                   {"date-sec", one.seconds},
                   {"date-nsec", one.nanoseconds},
                   {"vm-clock-sec", one.vm_clock / 1'000'000'000},
                   {"vm-clock-nsec", one.vm_clock % 1'000'000'000}});
  return out;
}

std::string snapshots_text(const Json& list) {
  std::string out = fmt::format("{:<8}{:<24}{}\n", "ID", "TAG", "DATE (seconds since 1970)");
  for (const Json& one : list)
    out += fmt::format("{:<8}{:<24}{}\n", one["id"].get<std::string>(), one["name"].get<std::string>(),
                       one["date-sec"].get<u64>());
  return out;
}

}  // namespace bulkhead::control
