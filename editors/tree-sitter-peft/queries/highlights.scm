; What names of highlights mean is the same in Helix and Neovim.
(comment) @comment

["peftc" "import" "let"] @keyword
(keyword) @keyword
(version) @constant.numeric @number

(declaration name: (name) @variable)
(binding (name) @variable)
(constructor (name) @function)
(call (name) @function)

(key) @variable.other.member @property
(pair key: (name) @variable.other.member @property)

(boolean) @constant.builtin.boolean @boolean
(numeral) @constant.numeric @number
(integer) @constant.numeric @number
(unit) @type
(string) @string
(escape) @constant.character.escape @string.escape

(segment (word) @variable)
(star) @operator
"=" @operator
".." @operator
["," ":" "."] @punctuation.delimiter
["{" "}" "[" "]"] @punctuation.bracket
