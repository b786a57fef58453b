[(block) (list) (map) (settings) (path_set)] @fold
