#include "zone/oci/layer.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "zone/oci/archive_reader.h"
#include "zone/oci/tar_maker.h"
#include "zone/store/sha256.h"

namespace bulkhead::zone {
namespace {

namespace fs = std::filesystem;
using test::TarMaker;

class LayerTest : public ::testing::Test {
 protected:
  LayerTest() {
    std::string name = fs::temp_directory_path() / "bulkhead-layer-XXXXXX";
    folder_ = ::mkdtemp(name.data());
    fs::create_directory(folder_ / "root");
    std::ofstream{folder_ / "secret"} << "the host's";
  }
  ~LayerTest() override {
    EXPECT_EQ(get("../secret"), "the host's") << "a layer reached out of its folder";
    EXPECT_FALSE(fs::exists(folder_ / "escaped"));
    fs::remove_all(folder_);
  }
  Result<void> apply(const std::string& tar, const std::optional<Digest>& digest = std::nullopt) {
    std::ofstream{folder_ / "layer", std::ios::binary} << tar;
    auto tree = Tree::open(folder_ / "root");
    return apply_layer(folder_ / "layer", digest, *tree, limits_, counts_, workshop_);
  }
  Result<void> apply(const TarMaker& tar) { return apply(tar.finish()); }
  std::string get(const std::string& name) const {
    std::ifstream in{folder_ / "root" / name, std::ios::binary};
    return {std::istreambuf_iterator<char>{in}, {}};
  }
  bool there(const std::string& name) const { return fs::exists(fs::symlink_status(folder_ / "root" / name)); }
  struct stat status(const std::string& name) const {
    struct stat out{};
    EXPECT_EQ(::lstat((folder_ / "root" / name).c_str(), &out), 0) << name;
    return out;
  }

  fs::path folder_;
  UnpackLimits limits_;
  UnpackCounts counts_;
  Progress progress_{Progress::Show::kNever};
  Workshop workshop_{progress_, nullptr};
};

TEST_F(LayerTest, FilesOfEveryKind) {
  const std::string long_name = "deep/" + std::string(120, 'n') + "/file";
  ASSERT_TRUE(apply(TarMaker{}
                        .folder("./", 0750)
                        .folder("etc")
                        .file("etc/a", "content", 04755)
                        .link("etc/link", "a")
                        .hard_link("etc/hard", "etc/a")
                        .add("etc/pipe", "", {.type = '6'})
                        .file("left/out/folders", "x")
                        .file(long_name, "long")
                        .file("n\xc3\xa4me", "utf-8")));
  EXPECT_EQ(get("etc/hard"), "content");
  EXPECT_EQ(status("etc/a").st_mode & 07777, 04755u);
  EXPECT_EQ(status("etc/a").st_nlink, 2u);
  EXPECT_EQ(status("etc/a").st_mtime, 1'000'000'000);
  EXPECT_EQ(status("etc").st_mtime, 1'000'000'000) << "also of a folder that was filled";
  EXPECT_EQ(status("").st_mode & 0777, 0750u);
  EXPECT_TRUE(S_ISFIFO(status("etc/pipe").st_mode));
  EXPECT_EQ(get("left/out/folders"), "x");
  EXPECT_EQ(get(long_name), "long");
  EXPECT_EQ(get("n\xc3\xa4me"), "utf-8");
}

TEST_F(LayerTest, OwnersIfWeAreRoot) {
  ASSERT_TRUE(apply(TarMaker{}.add("theirs", "x", {.mode = 0640, .uid = 1234, .gid = 4321})));
  EXPECT_EQ(status("theirs").st_uid, ::geteuid() == 0 ? 1234 : ::geteuid());
}

TEST_F(LayerTest, UpperLayersReplaceAndHide) {
  ASSERT_TRUE(apply(TarMaker{}
                        .file("file", "old")
                        .folder("dir")
                        .file("dir/a", "a")
                        .file("dir/b", "b")
                        .folder("opaque")
                        .file("opaque/old", "old")
                        .folder("opaque/sub")
                        .file("opaque/sub/old", "old")
                        .folder("becomes")
                        .file("becomes/x", "x")));
  ASSERT_TRUE(apply(TarMaker{}
                        .file("file", "new")
                        .file("dir/.wh.a", "")
                        .file("opaque/new", "new")
                        .file("opaque/.wh..wh..opq", "")
                        .file("becomes", "a file")
                        .file(".wh.never-there", "")
                        .file("dir/.wh..wh.plnk", "")));
  EXPECT_EQ(get("file"), "new");
  EXPECT_FALSE(there("dir/a"));
  EXPECT_EQ(get("dir/b"), "b");
  EXPECT_FALSE(there("opaque/old"));
  EXPECT_FALSE(there("opaque/sub"));
  EXPECT_EQ(get("opaque/new"), "new") << "what the layer itself brings stays, whatever the order";
  EXPECT_EQ(get("becomes"), "a file");
  EXPECT_FALSE(there("dir/.wh.a"));
  EXPECT_FALSE(there("dir/.wh..wh.plnk"));
}

TEST_F(LayerTest, LinksOfLowerLayersAreFollowedInside) {
  ASSERT_TRUE(apply(TarMaker{}.folder("usr").folder("usr/lib").link("lib", "usr/lib").link("abs", "/usr/lib")));
  ASSERT_TRUE(apply(TarMaker{}.file("lib/one", "1").file("abs/two", "2")));
  EXPECT_EQ(get("usr/lib/one"), "1");
  EXPECT_EQ(get("usr/lib/two"), "2");
  EXPECT_TRUE(S_ISLNK(status("lib").st_mode));
}

TEST_F(LayerTest, TheDigestIsOfAllThatIsThere) {
  const std::string tar = TarMaker{}.file("a", "a").finish() + std::string(5000, '\0');
  Sha256 sha;
  sha.add(tar);
  const std::string right = sha.hex();
  EXPECT_TRUE(apply(tar, Digest{right}));
  const auto wrong = apply(tar + "x", Digest{right});
  ASSERT_FALSE(wrong);
  EXPECT_TRUE(wrong.error().message.contains("is not what its configuration says")) << wrong.error().message;
}

// Hostile layers. The destructor looks whether anything outside was touched.

TEST_F(LayerTest, NamesThatLeadOut) {
  for (const std::string name : {"../escaped", "a/../../escaped", "/../escaped", "./../escaped", "..", "a/.."}) {
    EXPECT_FALSE(apply(TarMaker{}.file(name, "x"))) << name;
    EXPECT_FALSE(apply(TarMaker{}.folder(name))) << name;
    EXPECT_FALSE(apply(TarMaker{}.link(name, "x"))) << name;
    EXPECT_FALSE(apply(TarMaker{}.add(name, "", {.type = '6'}))) << name;
  }
  ASSERT_TRUE(apply(TarMaker{}.file("/etc/absolute", "x")));
  EXPECT_EQ(get("etc/absolute"), "x") << "below the image's root";
}

TEST_F(LayerTest, LinksThatLeadOut) {
  for (const std::string& target :
       std::vector<std::string>{"..", "../..", folder_.string(), std::string{"/proc/self/cwd/.."},
                                std::string{"/../../../../../../.."} + folder_.string()}) {
    apply(TarMaker{}.link("way", target).file("way/escaped", "x").file("way/secret", "overwritten"));
    apply(TarMaker{}.file("way/secret", "overwritten").file("way/.wh.secret", "").file("way/.wh..wh..opq", ""));
    apply(TarMaker{}.hard_link("stolen", "way/secret"));
    EXPECT_FALSE(there("stolen"));
    fs::remove_all(folder_ / "root");
    fs::create_directory(folder_ / "root");
  }
}

TEST_F(LayerTest, FilesReplaceLinksInsteadOfWritingThrough) {
  ASSERT_TRUE(apply(TarMaker{}.link("passwd", (folder_ / "secret").string()).file("passwd", "mine")));
  EXPECT_EQ(get("passwd"), "mine");
  EXPECT_TRUE(S_ISREG(status("passwd").st_mode));
}

TEST_F(LayerTest, HardLinksStayInside) {
  for (const std::string target : {"../secret", "/../secret", "../../etc/passwd", "nowhere", ""})
    EXPECT_FALSE(apply(TarMaker{}.file("x", "x").hard_link("stolen", target)) && there("stolen") &&
                 status("stolen").st_nlink > 1)
        << target;
  EXPECT_FALSE(apply(TarMaker{}.folder("dir").hard_link("link", "dir")));
  // To a link that leads out: the link itself, not what it names.
  ASSERT_TRUE(apply(TarMaker{}.link("out", (folder_ / "secret").string()).hard_link("other", "out")));
  EXPECT_TRUE(S_ISLNK(status("other").st_mode));
  ASSERT_TRUE(apply(TarMaker{}.hard_link("other", "other"))) << "to itself";
  EXPECT_TRUE(there("other"));
}

TEST_F(LayerTest, WhiteoutsStayInside) {
  for (const std::string name : {".wh...", ".wh..", ".wh.", "a/.wh..."}) apply(TarMaker{}.file(name, ""));
  EXPECT_TRUE(there("."));
  apply(TarMaker{}.file(".wh..wh..opq", ""));
  EXPECT_TRUE(there("."));
}

TEST_F(LayerTest, NoDeviceNodes) {
  ASSERT_TRUE(apply(TarMaker{}.add("null", "", {.type = '3'}).add("disk", "", {.type = '4'}).file("after", "x")));
  EXPECT_FALSE(there("null"));
  EXPECT_FALSE(there("disk"));
  EXPECT_EQ(get("after"), "x");
  EXPECT_EQ(counts_.devices, 2u);
}

TEST_F(LayerTest, TooMuchIsRefused) {
  limits_.bytes = 100'000;
  auto refused = apply(TarMaker{}.file("big", std::string(200'000, 'x')));
  ASSERT_FALSE(refused);
  EXPECT_TRUE(refused.error().message.contains("more than 100000 bytes"));
  limits_ = {};
  limits_.entries = 10;
  counts_ = {};
  TarMaker many;
  for (int i = 0; i < 20; ++i) many.file("f" + std::to_string(i), "");
  EXPECT_FALSE(apply(many));
  limits_ = {};
  limits_.free_bytes = 1000;
  limits_.ratio = 2;
  counts_ = {};
  EXPECT_TRUE(apply(TarMaker{}.file("fair", std::string(20'000, 'x')))) << "not compressed at all";
}

std::string gzipped(const std::string& bytes) {
  std::string out(bytes.size() / 4 + 4096, '\0');
  std::size_t used = 0;
  archive* const writer = archive_write_new();
  archive_write_add_filter_gzip(writer);
  archive_write_set_format_raw(writer);
  archive_write_open_memory(writer, out.data(), out.size(), &used);
  archive_entry* const entry = archive_entry_new();
  archive_entry_set_filetype(entry, AE_IFREG);
  archive_write_header(writer, entry);
  archive_write_data(writer, bytes.data(), bytes.size());
  archive_write_close(writer);
  archive_entry_free(entry);
  archive_write_free(writer);
  out.resize(used);
  return out;
}

TEST_F(LayerTest, BombsAreRefused) {
  const std::string bomb = gzipped(TarMaker{}.file("zeroes", std::string(20'000'000, '\0')).finish());
  ASSERT_LT(bomb.size(), 40'000u);
  ASSERT_TRUE(apply(bomb)) << "little enough to be honest";
  limits_.free_bytes = 1'000'000;
  counts_ = {};
  const auto refused = apply(bomb);
  ASSERT_FALSE(refused);
  EXPECT_TRUE(refused.error().message.contains("grow more than 400 times")) << refused.error().message;
}

TEST_F(LayerTest, BrokenFilesAreErrors) {
  const std::string good = TarMaker{}.file("a", std::string(5000, 'a')).file("b", "b").finish();
  EXPECT_FALSE(apply("this is no tar file at all, and long enough to be looked at" + std::string(2000, '!')));
  EXPECT_FALSE(apply(good.substr(0, 3000))) << "cut off in a file";
  for (std::size_t at = 0; at < 512; at += 7) {
    std::string bad = good;
    bad[at] = static_cast<char>(~bad[at]);
    apply(bad);  // whatever comes of it
  }
  std::string name_too_long = "a";
  for (int i = 0; i < 3000; ++i) name_too_long += "/a";
  EXPECT_FALSE(apply(TarMaker{}.file(name_too_long, "x")));
  EXPECT_FALSE(apply(TarMaker{}.file(std::string(300, 'n'), "x")));
  EXPECT_TRUE(apply(good));
}

TEST_F(LayerTest, TheRootStaysAFolder) {
  EXPECT_FALSE(apply(TarMaker{}.link("./", "/etc")));
  EXPECT_FALSE(apply(TarMaker{}.file(".", "x")));
  EXPECT_TRUE(fs::is_directory(folder_ / "root"));
}

}  // namespace
}  // namespace bulkhead::zone
