// SPDX-License-Identifier: Apache-2.0
// What of S3 needs no server: paths, settings, XML, checksums. tests/python/test_s3.py has the
// rest.
#include "storage/s3_store.h"

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <string>

#include "storage/checksum.h"
#include "storage/s3_xml.h"
#include "storage/testing.h"

namespace millstream {
namespace {

using Variables = std::map<std::string, std::string>;

Environment From(Variables variables) {
  return [variables = std::move(variables)](const std::string& name) {
    const auto found = variables.find(name);
    return found == variables.end() ? "" : found->second;
  };
}

TEST(S3PathTest, HasABucketAndAKey) {
  const S3Path path = ParseS3Path("s3://my-bucket/a/b c").ValueOrDie();
  EXPECT_EQ(path.bucket, "my-bucket");
  EXPECT_EQ(path.key, "a/b c");
  EXPECT_EQ(ParseS3Path("s3://my-bucket").ValueOrDie().key, "");
  for (const char* wrong :
       {"s3:/b/x",
        "/local",
        "s3://",
        "s3:///x",
        "s3://a",
        "s3://a b/x",
        "s3://user@host/x",
        "s3://a..b/x",
        "s3://host:80/x",
        "s3://b%2F/x"}) {
    EXPECT_TRUE(ParseS3Path(wrong).status().IsInvalid()) << wrong;
  }
}

// NIST's and RFC 1321's examples.
TEST(ChecksumTest, IsThatOfTheStandards) {
  EXPECT_EQ(
      ToHex(Sha256("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
  );
  EXPECT_EQ(ToHex(Md5("abc")), "900150983cd24fb0d6963f7d28e17f72");
  EXPECT_EQ(ToBase64("Ma"), "TWE=");
  EXPECT_EQ(ToBase64(""), "");
}

TEST(AwsSettingsTest, TheEnvironmentIsBeforeTheFiles) {
  const TempFolder folder;
  std::ofstream(folder / "config") << "[default]\nregion=eu-file-1\n"
                                      "endpoint_url = https://file/\n"
                                      "[profile other]\n# region = no\nregion = eu-other-1\n"
                                      "s3 =\n  region = nested\n";
  const Variables files{{"AWS_CONFIG_FILE", folder / "config"}};
  const auto load = [&](Variables variables) {
    variables.insert(files.begin(), files.end());
    return LoadAwsSettings(From(variables)).ValueOrDie();
  };
  EXPECT_EQ(load({}).region, "eu-file-1");
  EXPECT_EQ(load({}).endpoint, "https://file");
  EXPECT_EQ(load({{"AWS_PROFILE", "other"}}).region, "eu-other-1");
  EXPECT_EQ(load({{"AWS_DEFAULT_REGION", "b"}}).region, "b");
  EXPECT_EQ(load({{"AWS_DEFAULT_REGION", "b"}, {"AWS_REGION", "a"}}).region, "a");
  EXPECT_EQ(load({{"AWS_ENDPOINT_URL", "http://x"}}).endpoint, "http://x");
  EXPECT_EQ(
      load({{"AWS_ENDPOINT_URL", "http://x"}, {"AWS_ENDPOINT_URL_S3", "http://s"}}).endpoint,
      "http://s"
  );
}

TEST(AwsSettingsTest, AMistakeSaysWhatToSet) {
  const auto message = [](Variables variables) {
    return LoadAwsSettings(From(std::move(variables))).status().message();
  };
  EXPECT_NE(message({}).find("set AWS_REGION"), std::string::npos);
  EXPECT_NE(message({{"AWS_ENDPOINT_URL", "x:1"}}).find("https:// or http://"), std::string::npos);
  const std::string with_password = message({{"AWS_ENDPOINT_URL", "http://u:canary@x"}});
  EXPECT_NE(with_password.find("no user or password"), std::string::npos);
  EXPECT_EQ(with_password.find("canary"), std::string::npos);
}

TEST(AwsSettingsTest, KeysComeFromTheChain) {
  const TempFolder folder;
  std::ofstream(folder / "credentials") << "[a]\naws_access_key_id = file-id\n"
                                           "aws_secret_access_key = file-secret\n"
                                           "aws_session_token=token\n";
  const Variables base{
      {"AWS_SHARED_CREDENTIALS_FILE", folder / "credentials"}, {"AWS_EC2_METADATA_DISABLED", "true"}
  };
  const auto get = [&](Variables variables) {
    variables.insert(base.begin(), base.end());
    return AwsCredentialChain(From(variables)).Get();
  };
  EXPECT_EQ(get({{"AWS_PROFILE", "a"}}).ValueOrDie().key_id, "file-id");
  EXPECT_EQ(get({{"AWS_PROFILE", "a"}}).ValueOrDie().token, "token");
  const Variables both{{"AWS_ACCESS_KEY_ID", "id"}, {"AWS_SECRET_ACCESS_KEY", "secret"}};
  EXPECT_EQ(get(both).ValueOrDie().secret, "secret");
  for (const Variables& none :
       {Variables{}, Variables{{"AWS_PROFILE", "b"}}, Variables{{"AWS_ACCESS_KEY_ID", "canary"}}}) {
    const Status status = get(none).status();
    EXPECT_NE(status.message().find("AWS_SECRET_ACCESS_KEY"), std::string::npos) << status;
    EXPECT_EQ(status.message().find("canary"), std::string::npos);
  }
}

TEST(S3XmlTest, ReadsAPage) {
  StoreReply reply;
  ASSERT_TRUE(ParseS3Listing(
                  R"(<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/">
      <Name>b</Name><IsTruncated>true</IsTruncated><NextContinuationToken>a/+=</NextContinuationToken>
      <Contents><Key>d/a &amp; b</Key><ETag>&quot;12&quot;</ETag><Size>7</Size></Contents>
      <Contents><Key>d/c</Key><ETag>34</ETag><Size>0</Size><Owner><ID>x</ID></Owner></Contents>
      <CommonPrefixes><Prefix>d/e/</Prefix></CommonPrefixes></ListBucketResult>)",
                  reply
  )
                  .ok());
  ASSERT_EQ(reply.objects.size(), 2U);
  EXPECT_EQ(reply.objects[0].key, "d/a & b");
  EXPECT_EQ(reply.objects[0].etag, "\"12\"");
  EXPECT_EQ(reply.objects[0].size_bytes, 7U);
  EXPECT_EQ(reply.objects[1].etag, "\"34\"");
  EXPECT_EQ(reply.folders, std::vector<std::string>{"d/e/"});
  EXPECT_EQ(reply.next_page, "a/+=");
}

// XML has no way to write some bytes that a key may hold; a store that was asked to encodes them.
TEST(S3XmlTest, ReadsEncodedKeysWhereTheStoreSaysSo) {
  const std::string entries =
      "<Contents><Key>a+b%2Bc%01%C3%BC%2</Key><Size>1</Size></Contents>"
      "<CommonPrefixes><Prefix>d%0a/</Prefix></CommonPrefixes>";
  StoreReply plain, encoded;
  const auto in = [](const std::string& inner) {
    return "<ListBucketResult>" + inner + "</ListBucketResult>";
  };
  ASSERT_TRUE(ParseS3Listing(in(entries), plain).ok());
  ASSERT_TRUE(ParseS3Listing(in(entries + "<EncodingType>url</EncodingType>"), encoded).ok());
  EXPECT_EQ(plain.objects[0].key, "a+b%2Bc%01%C3%BC%2");
  EXPECT_EQ(plain.folders[0], "d%0a/");
  EXPECT_EQ(encoded.objects[0].key, "a b+c\x01\xC3\xBC%2");
  EXPECT_EQ(encoded.folders[0], "d\n/");
}

TEST(S3XmlTest, RefusesEverythingElse) {
  const std::string entry = "<Contents><Key>k</Key><Size>1</Size></Contents>";
  const auto in = [](const std::string& inner) {
    return "<ListBucketResult>" + inner + "</ListBucketResult>";
  };
  std::string many;
  for (int i = 0; i < 10'001; ++i) many += entry;
  std::string deep;
  for (int i = 0; i < 20; ++i) deep += "<a>";
  for (int i = 0; i < 20; ++i) deep += "</a>";
  const std::string bomb = "<!DOCTYPE x [<!ENTITY a \"aaaaaaaa\">]>" + in("<Name>&a;</Name>");
  for (const std::string& wrong :
       {std::string(),
        std::string("<a/>"),
        std::string("<ListBucketResult>"),
        in(many),
        in(deep),
        bomb,
        in("<Contents><Key>k</Key><Size>-1</Size></Contents>"),
        in("<Contents><Key>k</Key><Size>1x</Size></Contents>"),
        in("<Contents></Contents>"),
        in("<IsTruncated>true</IsTruncated>"),
        in("<NextContinuationToken>x</NextContinuationToken>"),
        in("<Name>" + std::string(20'000, 'x') + "</Name>")}) {
    StoreReply reply;
    EXPECT_FALSE(ParseS3Listing(wrong, reply).ok()) << wrong.substr(0, 100);
  }
}

}  // namespace
}  // namespace millstream
