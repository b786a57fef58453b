[(block) (list) (map) (settings) (path_set) (texts)] @indent @indent.begin
["}" "]"] @outdent @indent.end @indent.branch
