from testbed.commands import cluster

if __name__ == "__main__":
    cluster(prog_name="tools/cluster")
