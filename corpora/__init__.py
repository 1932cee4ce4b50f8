"""The texts that come with the project; README.md says where each is from."""
