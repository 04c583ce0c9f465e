#include "zone/oci/manifest.h"

#include <gtest/gtest.h>

#include "zone/oci/user.h"

namespace bulkhead::zone {
namespace {

const std::string kA(64, 'a'), kB(64, 'b');

std::string descriptor(const std::string& hex, const std::string& more = "") {
  return R"({"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:)" + hex + R"(","size":5)" +
         more + "}";
}
std::string index_of(const std::string& entries) { return R"({"schemaVersion":2,"manifests":[)" + entries + "]}"; }
std::string named(const std::string& name) {
  return R"(,"annotations":{"org.opencontainers.image.ref.name":")" + name + R"("})";
}
std::string platform(const std::string& architecture) {
  return R"(,"platform":{"os":"linux","architecture":")" + architecture + R"("})";
}

TEST(Manifest, TheRightEntryOfAnIndex) {
  const auto chosen = [](const std::string& entries, const std::string& name) {
    const auto index = parse_index(index_of(entries));
    EXPECT_TRUE(index) << index.error().message;
    return choose(*index, name);
  };
  EXPECT_EQ(chosen(descriptor(kA), "")->digest.hex, kA);
  const std::string two = descriptor(kA, named("one")) + "," + descriptor(kB, named("registry/x/two:latest"));
  EXPECT_EQ(chosen(two, "one")->digest.hex, kA);
  EXPECT_EQ(chosen(two, "registry/x/two:latest")->digest.hex, kB);
  EXPECT_EQ(chosen(two, "latest")->digest.hex, kB);
  EXPECT_TRUE(chosen(two, "").error().message.contains("several images here"));
  EXPECT_TRUE(chosen(two, "none").error().message.contains("there is one, registry/x/two:latest"));
  const std::string architectures = descriptor(kA, platform("arm64")) + "," + descriptor(kB, platform("amd64"));
  EXPECT_EQ(chosen(architectures, "")->digest.hex, kB);
  EXPECT_TRUE(chosen(descriptor(kA, platform("arm64")), "").error().message.contains("linux/arm64"));
  EXPECT_EQ(chosen(descriptor(kA, named("a")) + "," + descriptor(kA, named("b")), "")->digest.hex, kA) << "one image";
}

TEST(Manifest, LayersInOrder) {
  const auto manifest = parse_manifest(R"({"config":)" + descriptor(kA) + R"(,"layers":[)" + descriptor(kB) + "," +
                                       descriptor(kA) + "]}");
  ASSERT_TRUE(manifest);
  EXPECT_EQ(manifest->config.digest.hex, kA);
  ASSERT_EQ(manifest->layers.size(), 2u);
  EXPECT_EQ(manifest->layers[0].digest.hex, kB);
}

TEST(Manifest, Configuration) {
  const auto config = parse_config(R"({"os":"linux","architecture":"amd64","config":{"Entrypoint":["/bin/x","-v"],
      "Cmd":null,"Env":["A=1","=bad","none"],"User":"app:users","WorkingDir":"/srv"},
      "rootfs":{"type":"layers","diff_ids":["sha256:)" +
                                   kA + R"("]}})");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->entrypoint, (std::vector<std::string>{"/bin/x", "-v"}));
  EXPECT_TRUE(config->command.empty());
  EXPECT_EQ(config->environment, (std::vector<std::string>{"A=1"}));
  EXPECT_EQ(config->user, "app:users");
  EXPECT_EQ(config->layers.size(), 1u);
}

TEST(Manifest, DockersList) {
  const auto entries = parse_docker_manifest(
      R"([{"Config":"a.json","RepoTags":["x:1"],"Layers":["l/layer.tar"]},{"Config":"b.json","RepoTags":null,"Layers":[]}])");
  ASSERT_TRUE(entries);
  EXPECT_EQ(choose(*entries, "x:1")->config, "a.json");
  EXPECT_FALSE(choose(*entries, ""));
  EXPECT_FALSE(choose(*entries, "y"));
}

TEST(Manifest, DocumentsThatAreNone) {
  std::string deep(100'000, '[');
  for (const std::string& text :
       {std::string{}, std::string{"null"}, std::string{"5"}, std::string{"{"}, std::string{"[]"}, std::string{"{}"},
        deep, std::string(kMaxDocument + 1, ' '), std::string{R"({"manifests":{},"layers":5,"config":[]})"},
        std::string{R"({"manifests":[1],"layers":["x"],"config":"x"})"}}) {
    EXPECT_FALSE(parse_index(text)) << text.substr(0, 50);
    EXPECT_FALSE(parse_manifest(text)) << text.substr(0, 50);
    EXPECT_EQ(parse_docker_manifest(text).has_value(), text == "[]") << text.substr(0, 50);
  }
  EXPECT_FALSE(parse_config("no"));
  EXPECT_FALSE(parse_config(R"({"config":{"Entrypoint":"/bin/sh"}})"));
  EXPECT_FALSE(parse_config(R"({"config":{"Env":[1]}})"));
  EXPECT_FALSE(parse_config(R"({"config":{"User":7}})"));
  EXPECT_FALSE(parse_config(R"({"config":{"Cmd":["a\u0000b"]}})"));
  EXPECT_FALSE(parse_config(R"({"architecture":"arm64","os":"linux"})"));
  EXPECT_FALSE(parse_config(R"({"rootfs":{"diff_ids":["sha256:../../etc"]}})"));
  for (const std::string size : {"-1", "1.5", "\"5\"", "null"})
    EXPECT_FALSE(parse_index(index_of(R"({"digest":"sha256:)" + kA + R"(","size":)" + size + "}"))) << size;
}

TEST(Manifest, DigestsAreNothingElse) {
  EXPECT_TRUE(parse_digest("sha256:" + kA));
  for (const std::string& text : {std::string{}, kA, "sha256:" + kA + "a", "sha256:" + kA.substr(1),
                                  "sha512:" + kA + kA, "sha256:" + std::string(64, 'A'), "sha256:../" + kA.substr(3)})
    EXPECT_FALSE(parse_digest(text)) << text;
}

constexpr std::string_view kPasswd =
    "root:x:0:0:root:/root:/bin/sh\nbad line\napp:x:1000:1001:App:/home/app:/bin/sh\n"
    "evil:x:-1:99999999999:::\n";
constexpr std::string_view kGroup = "root:x:0:\nusers:x:100:other,app\ndocker:x:999:app\nappgroup:x:1001:app\n";

TEST(User, ByNameAndNumber) {
  EXPECT_EQ(resolve_user("", kPasswd, kGroup)->home, "/root");
  const auto app = resolve_user("app", kPasswd, kGroup);
  EXPECT_EQ(app->uid, 1000u);
  EXPECT_EQ(app->gid, 1001u);
  EXPECT_EQ(app->groups, (std::vector<u32>{100, 999}));
  EXPECT_EQ(app->home, "/home/app");
  EXPECT_EQ(resolve_user("1000", kPasswd, kGroup)->gid, 1001u);
  EXPECT_EQ(resolve_user("app:docker", kPasswd, kGroup)->gid, 999u);
  EXPECT_TRUE(resolve_user("app:docker", kPasswd, kGroup)->groups.empty());
  EXPECT_EQ(resolve_user("5:6", kPasswd, kGroup)->gid, 6u);
  EXPECT_EQ(resolve_user("5", "", "")->gid, 0u);
  EXPECT_EQ(resolve_user("", "", "")->uid, 0u);
}

TEST(User, NamesThatAreNot) {
  EXPECT_FALSE(resolve_user("nobody", kPasswd, kGroup));
  EXPECT_FALSE(resolve_user("app:none", kPasswd, kGroup));
  EXPECT_FALSE(resolve_user("evil", kPasswd, kGroup));
  EXPECT_FALSE(resolve_user("4294967295", kPasswd, kGroup));
  EXPECT_FALSE(resolve_user("-1", kPasswd, kGroup));
}

}  // namespace
}  // namespace bulkhead::zone
