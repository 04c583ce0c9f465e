// `bulkhead disk ...`: images made, looked at, checked, copied. Options and JSON fields are named as qemu-img's are, so
// that what was written for that finds its way here.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <thread>

#include "block/tools/edit.h"
#include "control/disk_text.h"

namespace bulkhead::control {
namespace {

using namespace block;
using namespace block::tools;
namespace spec = bulkhead::spec::qcow2;
using Json = nlohmann::ordered_json;

// As CLI11 fills it in; each verb reads what it has declared.
struct Raw {
  std::string file, second, size_text, name,
      output = "human", format, out_format = "raw", other_format, backing, backing_format, repair,
      preallocation = "off", cache = "writeback", snapshot, merge, base, sparse = "4k", length_text = "4096",
      step_text = "0", key_file, other_key_file, backing_key_file, offset_text = "0", granularity_text = "64k",
      aio = "auto";
  std::vector<std::string> options;
  bool chain = false, shrink = false, compress = false, progress = false, quiet = false, strict = false, unsafe = false,
       keep = false, list = false, write = false, random = false, no_create = false, force_share = false;
  bool add = false, remove = false, clear = false, enable = false, disable = false;
  std::string create_name, apply_name, delete_name;
  unsigned parallel = 8;
  u64 count = 75000, depth = 64, pattern = 0, flush_interval = 0, seed = 1;
  bool json() const { return output == "json"; }
};

constexpr int kDiffer = 1, kCorruptions = 2, kLeaks = 3;

void add_keys(OpenRequest& request, const Raw& raw) {
  if (!raw.key_file.empty() && !request.options.contains("key-file")) request.options["key-file"] = raw.key_file;
  if (!raw.backing_key_file.empty()) request.options["backing.key-file"] = raw.backing_key_file;
}

Result<NodePtr> open_image(Session& session, const Raw& raw, const std::string& path, const std::string& format,
                           DiskAccess access, std::map<std::string, std::string> options = {}) {
  OpenRequest request{.path = path, .format = format, .access = access};
  request.options = std::move(options);
  request.direct = raw.cache == "none" || raw.cache == "directsync";
  if (raw.force_share) request.lock = FileLock::kShared;
  if (raw.cache == "unsafe") request.options["sync"] = "off";
  add_keys(request, raw);
  return session.open(std::move(request));
}

// What was secret and is so no longer is said, for it was not asked for in words.
void say_bared(const std::string& from, const std::string& to) {
  fmt::print(stderr, "bulkhead: '{}' is encrypted, '{}' is not: who can read that file can read it all\n", from, to);
}

// Shows how far something is on a terminal, until it ends.
class Bar {
 public:
  Bar(const CopyProgress& progress, bool shown) : progress_{progress} {
    if (shown) thread_ = std::jthread{[this](std::stop_token stop) { show(stop); }};
  }
  ~Bar() {
    if (!thread_.joinable()) return;
    thread_.request_stop();
    thread_.join();
    print(fmt::format("    ({:6.2f}/100%)\n", percent()));
  }

 private:
  double percent() const {
    const u64 total = progress_.total;
    return total == 0 ? 100 : 100 * static_cast<double>(progress_.done) / static_cast<double>(total);
  }
  void show(const std::stop_token& stop) const {
    while (!stop.stop_requested()) {
      print(fmt::format("    ({:6.2f}/100%)\r", percent()));
      std::this_thread::sleep_for(std::chrono::milliseconds{100});
    }
  }
  const CopyProgress& progress_;
  std::jthread thread_;
};

Result<int> create(Session& session, const Raw& raw) {
  NewImage image{.path = raw.file, .format = raw.format.empty() ? "raw" : raw.format, .options = {}};
  BH_TRY(read_options(image, raw.options));
  image.options.backing_file = raw.backing.empty() ? image.options.backing_file : raw.backing;
  if (!raw.backing_format.empty()) image.options.backing_format = raw.backing_format;
  if (!raw.size_text.empty()) {
    BH_ASSIGN(image.options.size, parse_bytes(raw.size_text));
  } else if (image.options.backing_file.empty() && image.options.size == 0) {
    return fail("name a size, as in: bulkhead disk create -f qcow2 {} 10G", raw.file);
  }
  image.options.size = align_up(image.options.size, kSectorSize);
  image.backing_key_file = raw.backing_key_file;
  BH_TRY(judge_backing(session, image, raw.unsafe));
  BH_TRY(create_image(session, image));
  if (!raw.quiet) print(fmt::format("{}: {}, {} bytes\n", image.path, image.format, image.options.size));
  return 0;
}

Result<int> info(Session& session, const Raw& raw) {
  Json all = Json::array();
  std::string path = raw.file, format = raw.format;
  for (unsigned depth = 0; !path.empty() && depth < Opener::kMaxDepth; ++depth) {
    OpenRequest request{.path = path, .format = format};
    request.no_backing = true;
    request.options["check"] = "on";
    request.lock = raw.force_share ? FileLock::kShared : FileLock::kAsUsed;
    BH_ASSIGN(NodePtr node, session.open(request));
    all.push_back(info_json(*node, path));
    const qcow2::Qcow2Node* const image = as_qcow2(node.get());
    path = raw.chain && image != nullptr && !image->header().backing_file.empty()
               ? qcow2::child_path(path, image->header().backing_file)
               : "";
    format = image != nullptr ? image->header().backing_format : "";
    BH_TRY(session.close(node));
  }
  if (raw.json())
    print((raw.chain ? all : all[0]).dump(4) + "\n");
  else
    for (const Json& one : all) print(info_text(one));
  return 0;
}

Result<int> check(Session& session, const Raw& raw) {
  const bool mend = !raw.repair.empty();
  if (mend && raw.repair != "leaks" && raw.repair != "all") return fail("--repair is leaks or all");
  OpenRequest request{
      .path = raw.file, .format = raw.format, .access = mend ? DiskAccess::kReadWrite : DiskAccess::kReadOnly};
  request.no_backing = true;
  request.options["check"] = "on";
  BH_ASSIGN(NodePtr node, session.open(request));
  qcow2::Qcow2Node* const image = as_qcow2(node.get());
  if (image == nullptr) return fail("'{}' is a raw image: there is nothing in it to check", raw.file);
  const qcow2::Repair repair = !mend                 ? qcow2::Repair::kNone
                               : raw.repair == "all" ? qcow2::Repair::kAll
                                                     : qcow2::Repair::kLeaks;
  const auto result = session.run(image->check(repair));
  if (!result) return std::unexpected(failed(*node, "checking", result.error()));
  print(raw.json() ? check_json(*result, raw.file).dump(4) + "\n" : check_text(*result));
  BH_TRY(session.close(node));
  if (result->corruptions > result->corruptions_fixed) return kCorruptions;
  return result->leaks > result->leaks_fixed ? kLeaks : 0;
}

Result<int> map(Session& session, const Raw& raw) {
  BH_ASSIGN(NodePtr node, open_image(session, raw, raw.file, raw.format, DiskAccess::kReadOnly));
  BH_ASSIGN(const std::vector<MapLine> lines, session.run(map_image(node.get())));
  print(raw.json() ? map_json(lines) : map_text(lines));
  return 0;
}

Result<int> resize(Session& session, const Raw& raw) {
  BH_ASSIGN(NodePtr node, open_image(session, raw, raw.file, raw.format, DiskAccess::kReadWrite));
  const char sign = raw.size_text[0];
  BH_ASSIGN(u64 size, parse_bytes(sign == '+' || sign == '-' ? raw.size_text.substr(1) : raw.size_text));
  if (sign == '+') size += node->size();
  if (sign == '-') size = node->size() - std::min(size, node->size());
  if (size < node->size() && !raw.shrink)
    return fail("this would cut off the end of '{}': say --shrink if that is meant", raw.file);
  BH_ASSIGN(const Preallocation how, preallocation_of(raw.preallocation));
  const IoStatus status = session.run(node->truncate(align_up(size, kSectorSize), how));
  if (status != IoStatus::kOk) return std::unexpected(failed(*node, "resizing", status));
  BH_TRY(session.close(node));
  if (!raw.quiet) print("Image resized.\n");
  return 0;
}

Result<int> convert(Session& session, const Raw& raw) {
  std::map<std::string, std::string> options;
  if (!raw.snapshot.empty()) options["snapshot"] = raw.snapshot;
  BH_ASSIGN(NodePtr from, open_image(session, raw, raw.file, raw.format, DiskAccess::kReadOnly, options));
  NewImage image{.path = raw.second, .format = raw.out_format, .options = {}};
  BH_TRY(read_options(image, raw.options));
  image.options.size = from->size();
  image.options.backing_file = raw.backing;
  image.options.backing_format = raw.backing_format;
  if (raw.compress && image.format != "qcow2") return fail("-c needs -O qcow2");
  image.backing_key_file = raw.backing_key_file;
  BH_TRY(judge_backing(session, image, false));
  if (!raw.no_create) BH_TRY(create_image(session, image));
  OpenRequest request{.path = raw.second, .format = raw.out_format, .access = DiskAccess::kReadWrite};
  request.options["sync"] = "off";  // it is of no worth before it is whole
  if (!raw.other_key_file.empty()) image.key_file = raw.other_key_file;
  if (!image.key_file.empty()) request.options["key-file"] = image.key_file;
  if (!raw.backing_key_file.empty()) request.options["backing.key-file"] = raw.backing_key_file;
  BH_ASSIGN(NodePtr to, session.open(request));
  CopyOptions how{.parallel = raw.parallel, .compress = raw.compress};
  how.target_is_zero = !raw.no_create && raw.backing.empty();
  how.only_top = !raw.backing.empty();
  BH_ASSIGN(how.sparse_bytes, parse_bytes(raw.sparse));
  if (how.sparse_bytes != 0) how.sparse_bytes = std::max<u64>(align_up(how.sparse_bytes, kSectorSize), kSectorSize);
  CopyProgress progress;
  Bar bar{progress, raw.progress};
  BH_TRY(session.run(copy(from.get(), to.get(), how, &progress)));
  if (any_encrypted(from.get()) && !is_encrypted(to.get())) say_bared(raw.file, raw.second);
  BH_TRY(session.close(to));
  return 0;
}

std::map<std::string, std::string> second_key(const Raw& raw) {
  if (raw.other_key_file.empty()) return {};
  return {{"key-file", raw.other_key_file}};
}

Result<int> compare_images(Session& session, const Raw& raw) {
  BH_ASSIGN(NodePtr a, open_image(session, raw, raw.file, raw.format, DiskAccess::kReadOnly));
  BH_ASSIGN(NodePtr b, open_image(session, raw, raw.second, raw.other_format, DiskAccess::kReadOnly, second_key(raw)));
  CopyProgress progress;
  Bar bar{progress, raw.progress};
  BH_ASSIGN(const Difference result, session.run(compare(a.get(), b.get(), raw.strict, &progress)));
  if (result.same) {
    if (!raw.quiet) print("Images are identical.\n");
    return 0;
  }
  if (!raw.quiet)
    print(result.size_only ? "Images are of different size, and more than zeroes is behind the shorter one's end!\n"
                           : fmt::format("Content mismatch at offset {}!\n", result.offset));
  return kDiffer;
}

Result<int> rebase(Session& session, const Raw& raw) {
  BH_TRY(rebase_image(session, {.path = raw.file,
                                .backing = raw.backing,
                                .backing_format = raw.backing_format,
                                .unsafe = raw.unsafe,
                                .key_file = raw.key_file,
                                .backing_key_file = raw.backing_key_file}));
  if (!raw.quiet) print("Image rebased.\n");
  return 0;
}

Result<int> commit(Session& session, const Raw& raw) {
  CopyProgress progress;
  Bar bar{progress, raw.progress};
  BH_ASSIGN(
      const bool bared,
      commit_image(
          session,
          {.path = raw.file, .keep = raw.keep, .key_file = raw.key_file, .backing_key_file = raw.backing_key_file},
          &progress));
  if (bared) say_bared(raw.file, "its backing file");
  if (!raw.quiet) print("Image committed.\n");
  return 0;
}

Result<int> snapshot(Session& session, const Raw& raw) {
  const bool changes = !raw.create_name.empty() || !raw.apply_name.empty() || !raw.delete_name.empty();
  OpenRequest request{
      .path = raw.file, .format = raw.format, .access = changes ? DiskAccess::kReadWrite : DiskAccess::kReadOnly};
  request.no_backing = true;
  BH_ASSIGN(NodePtr node, session.open(request));
  qcow2::Qcow2Node* const image = as_qcow2(node.get());
  if (image == nullptr) return fail("'{}' is a raw image: it has no snapshots", raw.file);
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now);
  if (!raw.create_name.empty())
    BH_TRY(session.run(image->create_snapshot(raw.create_name, static_cast<u32>(seconds.count()),
                                              static_cast<u32>((now - seconds).count()))));
  if (!raw.apply_name.empty()) BH_TRY(session.run(image->apply_snapshot(raw.apply_name)));
  if (!raw.delete_name.empty()) BH_TRY(session.run(image->delete_snapshot(raw.delete_name)));
  if (!changes) {
    const Json list = snapshots_json(*image);
    print(raw.json() ? list.dump(4) + "\n" : snapshots_text(list));
  }
  BH_TRY(session.close(node));
  return 0;
}

Result<void> change_bitmap(Session& session, const Raw& raw, qcow2::Qcow2Node* image) {
  if (raw.add) {
    BH_ASSIGN(const u64 granularity, parse_bytes(raw.granularity_text));
    BH_TRY(
        session.run(image->add_bitmap(raw.name, static_cast<u32>(std::min<u64>(granularity, ~u32{0})), !raw.disable)));
  }
  if (raw.clear) BH_TRY(session.run(image->clear_bitmap(raw.name)));
  if (raw.enable) BH_TRY(session.run(image->enable_bitmap(raw.name, true)));
  if (raw.disable && !raw.add) BH_TRY(session.run(image->enable_bitmap(raw.name, false)));
  if (!raw.merge.empty()) {
    BH_ASSIGN(std::vector<bool> bits, session.run(image->read_bitmap(raw.merge)));
    const auto source = std::ranges::find(image->bitmaps(), raw.merge, &qcow2::Bitmap::name);
    BH_TRY(session.run(image->merge_bitmap(raw.name, std::move(bits), source->granularity_bits)));
  }
  if (raw.remove) BH_TRY(session.run(image->remove_bitmap(raw.name)));
  return {};
}

Result<int> list_bitmaps(const Raw& raw, Node& node) {
  const Json data = info_json(node, raw.file)["format-specific"]["data"];
  const Json list = data.contains("bitmaps") ? data["bitmaps"] : Json::array();
  if (raw.json()) {
    print(list.dump(4) + "\n");
    return 0;
  }
  for (const Json& one : list)
    print(fmt::format("{:<32} granularity {:<8} {}\n", one["name"].get<std::string>(), one["granularity"].get<u64>(),
                      one["flags"].dump()));
  return 0;
}

Result<int> bitmap(Session& session, const Raw& raw) {
  const bool changes = raw.add || raw.remove || raw.clear || raw.enable || raw.disable || !raw.merge.empty();
  if (changes && raw.name.empty()) return fail("name the bitmap, as in: bulkhead disk bitmap --add FILE NAME");
  OpenRequest request{
      .path = raw.file, .format = raw.format, .access = changes ? DiskAccess::kReadWrite : DiskAccess::kReadOnly};
  request.no_backing = true;
  BH_ASSIGN(NodePtr node, session.open(request));
  qcow2::Qcow2Node* const image = as_qcow2(node.get());
  if (image == nullptr) return fail("'{}' is a raw image: it has no bitmaps", raw.file);
  if (!changes) return list_bitmaps(raw, *node);
  BH_TRY(change_bitmap(session, raw, image));
  BH_TRY(session.close(node));
  return 0;
}

Result<int> bench(Session& session, const Raw& raw) {
  BH_ASSIGN(NodePtr node,
            open_image(session, raw, raw.file, raw.format, raw.write ? DiskAccess::kReadWrite : DiskAccess::kReadOnly));
  BenchOptions options{.count = raw.count, .depth = raw.depth};
  BH_ASSIGN(options.size, parse_bytes(raw.length_text));
  BH_ASSIGN(options.step, parse_bytes(raw.step_text));
  BH_ASSIGN(options.offset, parse_bytes(raw.offset_text));
  options.write = raw.write;
  options.random = raw.random;
  options.pattern = static_cast<u8>(raw.pattern);
  options.flush_interval = raw.flush_interval;
  options.seed = raw.seed;
  BH_ASSIGN(const double seconds, session.run(tools::bench(node.get(), options)));
  BH_TRY(session.close(node));
  if (raw.json())
    print(
        Json{{"seconds", seconds}, {"requests", options.count}, {"iops", static_cast<double>(options.count) / seconds}}
            .dump() +
        "\n");
  else
    print(fmt::format("Run completed in {:.3f} seconds.\n", seconds));
  return 0;
}

using Verb = Result<int> (*)(Session&, const Raw&);

struct Declared {
  CLI::App* app;
  Verb verb;
};

class Verbs {
 public:
  Verbs(CLI::App& app, Raw& raw) : app_{app}, raw_{raw} {}

  CLI::App* add(const char* name, const char* help, Verb verb) {
    CLI::App* const out = app_.add_subcommand(name, help);
    out->add_option("--output", raw_.output, "human or json")->check(CLI::IsMember({"human", "json"}));
    out->add_flag("-q,--quiet", raw_.quiet, "say nothing unless something is wrong");
    declared_.push_back({out, verb});
    return out;
  }
  CLI::App* with_file(CLI::App* app,
                      const char* format_help = "its format: raw or qcow2; without it by its first bytes") {
    app->add_option("-f,--format", raw_.format, format_help);
    app->add_option("FILE", raw_.file, "the image")->required();
    app->add_option("--key-file", raw_.key_file, "the key of an encrypted image: all bytes of this file");
    app->add_option("--backing-key-file", raw_.backing_key_file, "of the images below it");
    return app;
  }
  Verb chosen() const {
    for (const Declared& one : declared_)
      if (one.app->parsed()) return one.verb;
    return nullptr;
  }

 private:
  CLI::App& app_;
  Raw& raw_;
  std::vector<Declared> declared_;
};

void declare_making(Verbs& verbs, Raw& raw) {
  CLI::App* app = verbs.with_file(verbs.add("create", "make an image", create), "raw (default) or qcow2");
  app->add_option("SIZE", raw.size_text, "of the disk: 10G, 512M, ...");
  app->add_option("-o", raw.options,
                  "NAME=VALUE,...: cluster_size, compat, refcount_bits, lazy_refcounts, extended_l2, "
                  "compression_type, data_file, data_file_raw, preallocation, encrypt.format, encrypt.key-file, "
                  "encrypt.iter-time (ms)")
      ->allow_extra_args(false);
  app->add_option("-b,--backing", raw.backing, "the backing file");
  app->add_option("-F,--backing-format", raw.backing_format, "its format");
  app->add_flag("-u", raw.unsafe, "do not look at the backing file");
  app = verbs.with_file(verbs.add("resize", "give a disk another size", resize));
  app->add_option("SIZE", raw.size_text, "SIZE, +SIZE or -SIZE")->required();
  app->add_flag("--shrink", raw.shrink, "cutting the end off is meant");
  app->add_option("--preallocation", raw.preallocation, "off, metadata, falloc or full");
  app = verbs.with_file(verbs.add("convert", "copy an image into a new one", convert), "format of the source");
  app->add_option("OUTPUT", raw.second, "the new image")->required();
  app->add_option("-O,--target-format", raw.out_format, "its format: raw (default) or qcow2");
  app->add_option("-o", raw.options, "as of create")->allow_extra_args(false);
  app->add_option("-B,--backing", raw.backing, "its backing file: what the source's own does not hold is left out");
  app->add_option("-F,--backing-format", raw.backing_format, "the backing file's format");
  app->add_option("-l,--snapshot", raw.snapshot, "of this internal snapshot");
  app->add_option("-m,--parallel", raw.parallel, "requests in flight")->check(CLI::Range(1, 64));
  app->add_option("-S,--sparse-size", raw.sparse, "runs of zeroes so long are left out; 0: none");
  app->add_flag("-c,--compress", raw.compress, "compressed");
  app->add_flag("-n", raw.no_create, "OUTPUT is there already");
  app->add_option("--target-key-file", raw.other_key_file, "its key, if it is there already");
  app->add_flag("-W", raw.force_share, "accepted, and always so: writes are in no order")->group("");
  app->add_flag("-p,--progress", raw.progress, "show how far it is");
}

void declare_looking(Verbs& verbs, Raw& raw) {
  CLI::App* app = verbs.with_file(verbs.add("info", "what an image is", info));
  app->add_flag("--backing-chain", raw.chain, "and all below it");
  app->add_flag("-U,--force-share", raw.force_share, "though somebody writes to it");
  app = verbs.with_file(verbs.add("check", "compare an image's tables with its refcounts", check));
  app->add_option("-r,--repair", raw.repair, "mend: leaks, or all (default)")->expected(0, 1)->default_str("all");
  app = verbs.with_file(verbs.add("map", "where the contents are", map));
  app->add_flag("-U,--force-share", raw.force_share, "though somebody writes to it");
  app = verbs.with_file(verbs.add("compare", "compare the contents of two images", compare_images), "of the first");
  app->add_option("SECOND", raw.second, "the other image")->required();
  app->add_option("--other-key-file", raw.other_key_file, "its key");
  app->add_option("-F", raw.other_format, "its format");
  app->add_flag("-s", raw.strict, "sizes must be the same, too");
  app->add_flag("-p,--progress", raw.progress, "show how far it is");
  app = verbs.with_file(verbs.add("bench", "time requests", bench));
  app->add_option("-c,--count", raw.count, "requests")->capture_default_str();
  app->add_option("-d,--depth", raw.depth, "in flight")->capture_default_str();
  app->add_option("-s,--buffer-size", raw.length_text, "bytes of each")->capture_default_str();
  app->add_option("-S,--step", raw.step_text, "bytes from one to the next");
  app->add_option("-o,--offset", raw.offset_text, "of the first");
  app->add_option("-t,--cache", raw.cache, "writeback, none or unsafe");
  app->add_option("--pattern", raw.pattern, "byte that is written");
  app->add_option("--flush-interval", raw.flush_interval, "a flush after so many");
  app->add_option("--seed", raw.seed, "of the random places");
  app->add_flag("-w,--write", raw.write, "write");
  app->add_flag("-r,--random", raw.random, "at random places");
}

void declare_changing(Verbs& verbs, Raw& raw) {
  CLI::App* app = verbs.with_file(verbs.add("rebase", "give an image another backing file", rebase));
  app->add_option("-b,--backing", raw.backing, "the new one; \"\" for none")->required();
  app->add_option("-F,--backing-format", raw.backing_format, "its format");
  app->add_flag("-u", raw.unsafe, "change the name only; the contents are the same, or are to change");
  app = verbs.with_file(verbs.add("commit", "write an image's contents into its backing file", commit));
  app->add_flag("-d", raw.keep, "do not empty the image");
  app->add_flag("-p,--progress", raw.progress, "show how far it is");
  app = verbs.with_file(verbs.add("snapshot", "internal snapshots", snapshot));
  app->add_flag("-l,--list", raw.list, "list them (default)");
  app->add_option("-c,--create", raw.create_name, "make one");
  app->add_option("-a,--apply", raw.apply_name, "go back to it");
  app->add_option("-d,--delete", raw.delete_name, "delete it");
  app = verbs.with_file(verbs.add("bitmap", "persistent bitmaps of what was written", bitmap));
  app->add_option("NAME", raw.name, "of the bitmap; without one and without a change they are listed");
  app->add_option("-g,--granularity", raw.granularity_text, "of --add: bytes for one bit")->capture_default_str();
  app->add_option("--merge", raw.merge, "add the bits of this one");
  app->add_flag("--add", raw.add, "make it");
  app->add_flag("--remove", raw.remove, "remove it");
  app->add_flag("--clear", raw.clear, "no bits");
  app->add_flag("--enable", raw.enable, "it records from now on");
  app->add_flag("--disable", raw.disable, "it does not record (with --add: from the beginning)");
}

}  // namespace

int disk_command(const DiskCommand& command, Surroundings& around) {
  CLI::App app{"disk images", "bulkhead disk"};
  app.require_subcommand(1);
  Raw raw;
  Verbs verbs{app, raw};
  declare_making(verbs, raw);
  declare_looking(verbs, raw);
  declare_changing(verbs, raw);
  try {
    std::vector<std::string> reversed{command.arguments.rbegin(), command.arguments.rend()};
    app.parse(reversed);
  } catch (const CLI::CallForHelp&) {
    const auto chosen = app.get_subcommands();
    print(chosen.empty() ? app.help() : chosen[0]->help());
    return 0;
  } catch (const CLI::ParseError& error) {
    return say_failure({error.what()}, around);
  }
  auto session = Session::create();
  if (!session) return say_failure(session.error(), around);
  const auto code = verbs.chosen()(**session, raw);
  if (!code) {
    say_failure(code.error(), around);
    return verbs.chosen() == compare_images ? 2 : 1;
  }
  return *code;
}

}  // namespace bulkhead::control
